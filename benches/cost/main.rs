//! What the library and the program cost, in figures that noise does not move: instructions, allocations, system
//! calls, commands to Redis, round trips. Each is held against a committed one, and growth is an error.
//!
//! ```sh
//! bash tests/costs.sh                                                 # count and compare
//! bash tests/costs.sh --update                                        # record the figures
//! cargo bench --profile cost --features proxy --bench cost -- redis   # only figures whose name contains it
//! ```
//!
//! Linux only; needs `valgrind`, `strace`, and the servers of Redis and PostgreSQL. How it counts, and what the
//! figures depend on: `benches/README.md`.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod allocator;
#[path = "../common/bare.rs"]
mod bare;
#[path = "../common/child.rs"]
mod child;
mod conversation;
#[path = "../common/error.rs"]
mod error;
mod figures;
mod library;
#[path = "../operations/mod.rs"]
mod operations;
mod options;
mod process;
mod proxies;
#[path = "../../tests/common/servers/mod.rs"]
mod servers;
mod stores;
mod tools;
#[path = "../../tests/common/turns.rs"]
mod turns;

use std::{env, process::ExitCode, time::Instant};

use error::BoxError;
use figures::{Committed, Figures};
use options::Options;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ended = match words.as_slice() {
        [bare::ROLE, upstream] => bare::main(upstream),
        [library::ROLE, name, times] => library::main(name, times),
        _ if !words.contains(&"--bench") || words.contains(&"--test") => {
            println!("cost: nothing is measured by a test run; use cargo bench");
            Ok(())
        }
        _ => options::read(&words).and_then(run),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cost: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What a machine may set for all builds.
const FLAGS: [&str; 4] =
    ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "CARGO_INCREMENTAL"];

/// How often what seems to have grown is counted once more. Noise only adds, and not every time; what has grown has
/// grown each time.
const RECOUNTS: usize = 2;

fn run(mut options: Options) -> Result<(), BoxError> {
    let all = options.only.is_none();
    let committed = match options.update && all {
        true => Committed::default(),
        false => Committed::read(options.against.as_deref())?,
    };
    if let Some(flags) = FLAGS.iter().find(|name| env::var_os(name).is_some_and(|value| value != "0")) {
        eprintln!("cost: {flags} is set, which moves instructions: `env -u {flags}` before the command");
        if options.update {
            return Err("figures are recorded without flags".into());
        }
    }
    let mut figures = count(&options)?;
    if options.update {
        for _ in 0..RECOUNTS {
            figures.lower(count(&options)?);
        }
        figures.compare_with_bare(all)?;
        return committed.update(figures, all);
    }
    for _ in 0..RECOUNTS {
        let grown = committed.grown(&figures);
        if grown.is_empty() {
            break;
        }
        eprintln!("cost: counted once more: {}", grown.iter().cloned().collect::<Vec<_>>().join("; "));
        options.again = Some(grown);
        figures.lower(count(&options)?);
    }
    figures.compare_with_bare(all)?;
    committed.compare(&figures, all)
}

fn count(options: &Options) -> Result<Figures, BoxError> {
    let mut figures = Figures::default();
    // Allocations are counted in this process, so nothing else may run in it meanwhile.
    step("allocations of the library", || {
        library::allocations(options, &mut figures);
        Ok(())
    })?;
    step("the stores", || stores::measure(options, &mut figures))?;
    step("instructions of the library", || library::instructions(options, &mut figures))?;
    step("the program", || proxies::measure(options, &mut figures))?;
    Ok(figures)
}

fn step(name: &str, work: impl FnOnce() -> Result<(), BoxError>) -> Result<(), BoxError> {
    let started = Instant::now();
    work()?;
    eprintln!("cost: {name}: {:.0?}", started.elapsed());
    Ok(())
}
