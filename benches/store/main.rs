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
#[path = "../common/error.rs"]
mod error;
mod operation;
mod options;
mod report;
mod run;
#[path = "../../tests/common/servers/mod.rs"]
mod servers;
mod targets;
#[path = "../../tests/common/turns.rs"]
mod turns;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if !words.contains(&"--bench") || words.contains(&"--test") {
        println!("store: nothing is measured by a test run; use cargo bench");
        return ExitCode::SUCCESS;
    }
    match options::read(&words).and_then(|options| run::run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("store: {error}");
            ExitCode::FAILURE
        }
    }
}
