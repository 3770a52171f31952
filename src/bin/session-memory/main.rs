//! `session-memory`: a reverse proxy in front of an OpenAI-format server that gives its conversations a memory.
//!
//! The rooms, each of which uses only those below it:
//!
//! | room | |
//! |---|---|
//! | `commands` | the command line: one file or folder a command; `commands/serve.rs` is the story of the proxy |
//! | `build` | turns settings into what runs: the log, the store, the layer, the server |
//! | `server` | clients' side: listener, worker threads, connections, gate, admission, drain, admin listener |
//! | `upstream` | the upstream's side: the service that forwards a request, and its connections |
//! | `traffic` | what both sides share: refusals, hop-by-hop headers, upgrades, time limits |
//! | `settings` | every setting: its name, default, types, and the sources it is read from |
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

mod build;
mod commands;
mod error;
mod server;
mod settings;
mod traffic;
mod upstream;

use std::process::ExitCode;

fn main() -> ExitCode {
    match commands::run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("session-memory: {}", error::chain(&*error));
            ExitCode::FAILURE
        }
    }
}
