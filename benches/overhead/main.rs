//! What the memory costs: requests per second, CPU per request and latency with and without it.
//!
//! ```sh
//! cargo bench --features proxy --bench overhead              # all of it, in minutes
//! cargo bench --features proxy --bench overhead -- --quick   # one small repetition: does it still run?
//! ```
//!
//! Each target is a process of its own, and so is the upstream; this process is the client. Every reply says
//! how many messages and bytes the upstream was sent, and a run in which that is not the whole history ends
//! in an error. How it is measured, and what was: `benches/README.md`.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod bare;
mod chat;
mod client;
#[path = "../common/mod.rs"]
mod common;
mod process;
mod report;
mod run;
mod upstream;

use std::process::ExitCode;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What the command line asks for.
struct Options {
    repetitions: usize,
    /// A divisor of the number of requests.
    smaller: usize,
    /// Only scenarios whose name contains this.
    only: Option<String>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ended = match words.as_slice() {
        [upstream::ROLE] => upstream::main(),
        [bare::ROLE, upstream] => bare::main(upstream),
        _ if !words.contains(&"--bench") || words.contains(&"--test") => {
            println!("overhead: nothing is measured by a test run; use cargo bench");
            Ok(())
        }
        _ => options(&words).and_then(|options| run::run(&options)),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("overhead: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options(words: &[&str]) -> Result<Options, BoxError> {
    let mut options = Options { repetitions: 5, smaller: 1, only: None };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--bench" => {}
            "--quick" => (options.repetitions, options.smaller) = (1, 20),
            "--repetitions" => {
                let count = words.next().ok_or("--repetitions takes a number")?;
                options.repetitions = count.parse::<usize>()?.max(1);
            }
            only if !only.starts_with('-') => options.only = Some(only.to_owned()),
            other => return Err(format!("{other}: there are --quick, --repetitions N and a filter").into()),
        }
    }
    Ok(options)
}
