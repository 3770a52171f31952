//! What stores cost: loads and appends of short and long sessions, with the cache of logs and without it.
//!
//! ```sh
//! cargo bench --features postgres,redis,sqlite --bench store              # all of it, in minutes
//! cargo bench --features postgres,redis,sqlite --bench store -- --quick   # one small repetition: does it still run?
//! ```
//!
//! Redis and PostgreSQL are started here, on free ports. Every load is checked: it must hold the turns that were
//! appended. A run in which loading a cached session takes more than one round trip, or moves more the longer
//! the session is, ends in an error. How it is measured, and what was: `benches/README.md`.

#![allow(clippy::print_stdout, clippy::print_stderr)]

#[path = "../common/mod.rs"]
mod common;
mod report;
mod run;
#[path = "../../tests/common/servers/mod.rs"]
mod servers;
mod targets;
#[path = "../../tests/common/turns.rs"]
mod turns;

use std::process::ExitCode;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What the command line asks for.
struct Options {
    repetitions: usize,
    /// A divisor of the number of sessions.
    smaller: usize,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if !words.contains(&"--bench") || words.contains(&"--test") {
        println!("store: nothing is measured by a test run; use cargo bench");
        return ExitCode::SUCCESS;
    }
    match options(&words).and_then(|options| run::run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("store: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options(words: &[&str]) -> Result<Options, BoxError> {
    let mut options = Options { repetitions: 5, smaller: 1 };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--bench" => {}
            "--quick" => (options.repetitions, options.smaller) = (1, 20),
            "--repetitions" => {
                let count = words.next().ok_or("--repetitions takes a number")?;
                options.repetitions = count.parse::<usize>()?.max(1);
            }
            other => return Err(format!("{other}: there are --quick and --repetitions N").into()),
        }
    }
    Ok(options)
}
