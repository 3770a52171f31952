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
#[path = "../common/error.rs"]
mod error;
mod fill;
mod options;
mod run;
#[path = "../../tests/common/servers/mod.rs"]
mod servers;
#[path = "../../tests/common/turns.rs"]
mod turns;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if !words.contains(&"--bench") || words.contains(&"--test") {
        println!("scale: nothing is measured by a test run; use cargo bench");
        return ExitCode::SUCCESS;
    }
    let measured = options::read(&words).and_then(|options| match options.erasure {
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
