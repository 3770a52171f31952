//! `session-memory`: a reverse proxy in front of an OpenAI-format server that gives its conversations a memory.
//!
//! The story is parse → build → serve → drain: `cli`, `config`, `serve` and `drain`.
//!
//! # Exit codes
//!
//! | code | |
//! |---|---|
//! | 0 | the work was done; on a signal: every reply ended and every turn was stored |
//! | 1 | the settings or the start failed |
//! | 2 | the command line was wrong |
//! | 3 | on a signal: a reply was cut at the deadline, or a turn could not be stored; of `import`: something was left out |
//! | 130 | a second signal ended the process at once |
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is a command line program")]

mod admin;
mod admission;
mod body;
mod cli;
mod config;
mod connection;
mod deadline;
mod demo;
mod drain;
mod framing;
mod gate;
mod headers;
mod import;
mod layer;
mod listen;
mod log;
mod per_worker;
mod reply;
mod seldom;
mod send;
mod serve;
mod settings;
mod store;
mod upgrade;
mod upstream;
mod wire;
mod workers;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("session-memory: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An error and what caused it, in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
