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
mod goals;
mod nginx;
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

use std::{process::ExitCode, time::Instant};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What the command line asks for.
struct Options {
    repetitions: usize,
    /// A divisor of the number of requests.
    smaller: usize,
    /// Only scenarios whose name contains one of these.
    only: Vec<String>,
    /// Targets that are left out, as `nginx`.
    without: Vec<String>,
    peers: bool,
    plot: bool,
    /// Whether figures and plots go to where the committed ones are.
    save: bool,
    started: Instant,
}

impl Options {
    fn has(&self, target: &str) -> bool {
        !self.without.iter().any(|without| without == target)
    }

    fn wants(&self, scenario: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| scenario.contains(only.as_str()))
    }

    fn tell(&self, scenario: &str, round: usize, rounds: usize) {
        if round.is_multiple_of(rounds) {
            let (passed, repetition) = (self.started.elapsed().as_secs(), round / rounds + 1);
            eprintln!("{passed:4} s  {scenario}: repetition {repetition} of {}", self.repetitions);
        }
    }
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
    let mut options = Options {
        repetitions: 5,
        smaller: 1,
        only: Vec::new(),
        without: Vec::new(),
        peers: false,
        plot: true,
        save: false,
        started: Instant::now(),
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--bench" => {}
            "--quick" => (options.repetitions, options.smaller) = (1, 20),
            "--peers" => options.peers = true,
            "--no-plot" => options.plot = false,
            "--save" => options.save = true,
            "--repetitions" => {
                let count = words.next().ok_or("--repetitions takes a number")?;
                options.repetitions = count.parse::<usize>()?.max(1);
            }
            "--without" => match *words.next().ok_or("--without takes nginx or postgres")? {
                target @ ("nginx" | "postgres") => options.without.push(target.to_owned()),
                other => return Err(format!("{other}: only nginx and postgres can be left out").into()),
            },
            only if !only.starts_with('-') => options.only.push(only.to_owned()),
            other => {
                let known =
                    "--quick, --peers, --without nginx, --repetitions N, --save, --no-plot and filters";
                return Err(format!("{other}: there are {known}").into());
            }
        }
    }
    Ok(options)
}
