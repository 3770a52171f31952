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

#[path = "../common/bare.rs"]
mod bare;
#[path = "../common/child.rs"]
mod child;
mod conversation;
mod figures;
mod library;
#[path = "../operations/mod.rs"]
mod operations;
mod process;
mod proxies;
#[path = "../../tests/common/servers/mod.rs"]
mod servers;
mod stores;
mod tools;
#[path = "../../tests/common/turns.rs"]
mod turns;

use std::{alloc::System, collections::BTreeSet, env, path::PathBuf, process::ExitCode, time::Instant};

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use figures::{Committed, Figures};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What the command line asks for.
pub(crate) struct Options {
    update: bool,
    /// Figures of another commit on this machine, instead of the committed ones.
    against: Option<PathBuf>,
    /// Only figures whose name contains this.
    only: Option<String>,
    /// Of them only these, which are counted once more.
    again: Option<BTreeSet<String>>,
    /// A factor for the longer one of two runs of a program: for profiles, in which its start shall vanish.
    pub(crate) times: usize,
}

impl Options {
    pub(crate) fn wants(&self, name: &str) -> bool {
        // A command's name begins with that of the turn which calls it.
        let again = |names: &BTreeSet<String>| names.iter().any(|wanted| wanted.starts_with(name));
        self.only.as_ref().is_none_or(|only| name.contains(only)) && self.again.as_ref().is_none_or(again)
    }
}

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
        _ => options(&words).and_then(run),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cost: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options(words: &[&str]) -> Result<Options, BoxError> {
    let mut options = Options { update: false, against: None, only: None, again: None, times: 1 };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--bench" => {}
            "--update" => options.update = true,
            "--against" => options.against = Some(words.next().ok_or("--against takes a file")?.into()),
            "--times" => {
                options.times = words.next().ok_or("--times takes a number")?.parse::<usize>()?.max(1);
            }
            only if !only.starts_with('-') => options.only = Some(only.to_owned()),
            other => {
                return Err(
                    format!("{other}: there are --update, --against FILE, --times N and a filter").into()
                );
            }
        }
    }
    Ok(options)
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
