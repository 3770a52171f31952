//! What the memory costs: requests per second, CPU per request and latency with and without it.
//!
//! ```sh
//! cargo bench --features proxy --bench overhead               # ours, a bare proxy and nginx, in minutes
//! cargo bench --features proxy --bench overhead -- --peers    # what people use today as well
//! cargo bench --features proxy --bench overhead -- --quick    # one small repetition: does it still run?
//! ```
//!
//! Each target is a process of its own, and so is the upstream; this process is the client. Every reply says
//! how many messages and bytes the upstream was sent, and a run in which that is not the whole history ends
//! in an error. How it is measured, and what was: `benches/README.md`.

#![allow(clippy::print_stdout, clippy::print_stderr)]

#[path = "../common/bare.rs"]
mod bare;
mod chat;
#[path = "../common/child.rs"]
mod child;
mod client;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/error.rs"]
mod error;
mod goals;
mod nginx;
mod options;
mod peers;
mod process;
mod python;
mod report;
mod rows;
mod run;
mod saturation;
mod scenarios;
#[path = "../../tests/common/servers/mod.rs"]
mod servers;
mod streams;
mod targets;
mod upstream;
mod wire;

use std::process::ExitCode;

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
        _ => options::read(&words).and_then(|options| run::run(&options)),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("overhead: {error}");
            ExitCode::FAILURE
        }
    }
}
