//! Whether stores stay as fast as they are when they hold many sessions, and one long one.
//!
//! ```sh
//! cargo bench --features postgres,redis,sqlite --bench scale                          # 10,000 against 1,000,000
//! cargo bench --features postgres,redis,sqlite --bench scale -- --sessions 10000000   # takes 8 GB of disk, 6 of memory
//! cargo bench --features postgres,redis,sqlite --bench scale -- --quick               # does it still run?
//! cargo bench --features postgres,redis,sqlite --bench scale -- --erasure             # a million sessions erased
//! ```
//!
//! A word names the only store to look at: `-- sqlite`. The sessions that fill a store are put there past it; those
//! that are measured, spread among them, through it. How it is measured, and what was: `benches/README.md`.

#![allow(clippy::print_stdout, clippy::print_stderr)]

#[path = "../common/mod.rs"]
mod common;
mod erasure;
mod fill;
mod run;
#[path = "../../tests/common/servers/mod.rs"]
mod servers;
#[path = "../../tests/common/turns.rs"]
mod turns;

use std::process::ExitCode;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What the command line asks for.
struct Options {
    few: usize,
    many: usize,
    /// Sessions that are measured.
    samples: usize,
    /// Turns of the long session.
    long: usize,
    repetitions: usize,
    /// Whether the erasure of many sessions is measured, and nothing else.
    erasure: bool,
    /// Of which stores.
    stores: Vec<&'static str>,
}

const STORES: [&str; 3] = ["sqlite", "redis", "postgres"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if !words.contains(&"--bench") || words.contains(&"--test") {
        println!("scale: nothing is measured by a test run; use cargo bench");
        return ExitCode::SUCCESS;
    }
    let measured = options(&words).and_then(|options| match options.erasure {
        true => erasure::run(&options),
        false => run::run(&options),
    });
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scale: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options(words: &[&str]) -> Result<Options, BoxError> {
    let mut options = Options {
        few: 10_000,
        many: 1_000_000,
        samples: 200,
        long: 10_000,
        repetitions: 5,
        erasure: false,
        stores: STORES.to_vec(),
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--bench" => {}
            "--quick" => {
                options =
                    Options { few: 1_000, many: 10_000, samples: 20, long: 200, repetitions: 1, ..options };
            }
            "--erasure" => options.erasure = true,
            "--sessions" => options.many = words.next().ok_or("--sessions takes a number")?.parse()?,
            word => match STORES.iter().find(|store| **store == word) {
                Some(store) => options.stores = vec![*store],
                None => {
                    return Err(
                        format!("{word}: there are --quick, --erasure, --sessions N and {STORES:?}").into()
                    );
                }
            },
        }
    }
    Ok(options)
}
