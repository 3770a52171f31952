//! Scenarios, targets, and the order in which they are measured.

use std::{path::Path, sync::Arc, time::Duration};

use crate::{
    BoxError, Options,
    chat::{self, Ask},
    client::{Load, Measured},
    common::machine::Machine,
    process::Process,
    report::{self, Block, Row},
};

/// What is asked for.
pub(crate) struct Scenario {
    pub(crate) stream: bool,
    pub(crate) concurrency: usize,
    /// The turns that each conversation begins with; it grows while it is measured.
    pub(crate) turns: usize,
    conversations: usize,
    asked_of_each: usize,
}

/// Who is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// The upstream itself.
    Direct,
    /// The least that a proxy does.
    Bare,
    /// The program, without a session: the client sends the whole history.
    Proxy,
    /// The program with its in-memory store.
    Memory,
    /// The program with SQLite.
    Sqlite,
}

impl Target {
    pub(crate) const ALL: [Self; 5] = [Self::Direct, Self::Bare, Self::Proxy, Self::Memory, Self::Sqlite];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "(a) no proxy",
            Self::Bare => "bare hyper proxy",
            Self::Proxy => "(b) without the layer",
            Self::Memory => "(c) in memory",
            Self::Sqlite => "(d) SQLite",
        }
    }

    fn remembers(self) -> bool {
        matches!(self, Self::Memory | Self::Sqlite)
    }
}

const SCENARIOS: [Scenario; 7] = [
    Scenario { stream: false, concurrency: 1, turns: 0, conversations: 2000, asked_of_each: 1 },
    Scenario { stream: false, concurrency: 1, turns: 20, conversations: 200, asked_of_each: 5 },
    Scenario { stream: false, concurrency: 1, turns: 200, conversations: 40, asked_of_each: 20 },
    Scenario { stream: false, concurrency: 16, turns: 0, conversations: 4000, asked_of_each: 1 },
    Scenario { stream: false, concurrency: 16, turns: 20, conversations: 320, asked_of_each: 5 },
    Scenario { stream: false, concurrency: 16, turns: 200, conversations: 48, asked_of_each: 20 },
    Scenario { stream: true, concurrency: 16, turns: 20, conversations: 160, asked_of_each: 5 },
];

const COMMAND: &str = "cargo bench --features proxy --bench overhead";

/// Connections over which conversations are brought to their depth.
const SEEDERS: usize = 16;

impl Scenario {
    pub(crate) fn name(&self) -> String {
        let reply = if self.stream { "SSE" } else { "JSON" };
        format!("{reply} c={} t={}", self.concurrency, self.turns)
    }

    fn depths(&self) -> std::ops::Range<usize> {
        self.turns..self.turns + self.asked_of_each
    }
}

/// Measures everything that is asked for and prints the table.
///
/// # Errors
///
/// When a process does not start, a request fails, or history did not arrive.
pub(crate) fn run(options: &Options) -> Result<(), BoxError> {
    let machine = Machine::look();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut rows = Vec::new();
    for scenario in &SCENARIOS {
        if options.only.as_ref().is_none_or(|only| scenario.name().contains(only.as_str())) {
            // New processes and files, so that no scenario pays for what another one has stored.
            let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
            let targets = Targets::start(directory.path())?;
            rows.extend(runtime.block_on(measure(scenario, &targets, options))?);
        }
    }
    let csv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("overhead.csv");
    std::fs::write(&csv, report::csv(&rows))?;
    println!("{}\n{}", machine.describe(COMMAND, options.repetitions), report::markdown(&rows));
    println!("Also in {}", csv.display());
    Ok(())
}

/// All processes of a scenario.
struct Targets {
    upstream: Process,
    bare: Process,
    proxy: Process,
    memory: Process,
    sqlite: Process,
}

impl Targets {
    fn start(directory: &Path) -> Result<Self, BoxError> {
        let upstream = Process::upstream()?;
        let proxy = |store| Process::proxy(upstream.address, store, directory);
        Ok(Self {
            bare: Process::bare(upstream.address)?,
            proxy: proxy("memory")?,
            memory: proxy("memory")?,
            sqlite: proxy("sqlite:overhead.db")?,
            upstream,
        })
    }

    fn process(&self, target: Target) -> &Process {
        match target {
            Target::Direct => &self.upstream,
            Target::Bare => &self.bare,
            Target::Proxy => &self.proxy,
            Target::Memory => &self.memory,
            Target::Sqlite => &self.sqlite,
        }
    }
}

/// The repetitions of a scenario, interleaved: each asks every target once, beginning with another one.
async fn measure(scenario: &Scenario, targets: &Targets, options: &Options) -> Result<Vec<Row>, BoxError> {
    let asks = Arc::new(chat::asks(scenario.depths().end, scenario.stream));
    let mut blocks = Target::ALL.map(|target| (target, Vec::new()));
    for repetition in 0..options.repetitions {
        eprintln!("{}: repetition {} of {}", scenario.name(), repetition + 1, options.repetitions);
        let count = blocks.len();
        for place in 0..count {
            let (target, measured) = &mut blocks[(repetition + place) % count];
            let process = targets.process(*target);
            let name = format!("{}-{repetition}", scenario.name().replace(' ', "-"));
            measured.push(block(scenario, *target, process, &asks, &name, options.smaller).await?);
        }
    }
    Ok(blocks.into_iter().map(|(target, blocks)| Row::new(scenario, target, blocks)).collect())
}

/// One target, once: warm it up, bring its conversations to their depth, measure.
async fn block(
    scenario: &Scenario,
    target: Target,
    process: &Process,
    asks: &Arc<Vec<Ask>>,
    name: &str,
    smaller: usize,
) -> Result<Block, BoxError> {
    let conversations = (scenario.conversations / smaller).max(2);
    let reply = if scenario.stream {
        chat::events().iter().map(|event| event.len()).sum()
    } else {
        chat::json().len()
    };
    let load = |concurrency, conversations, depths, session: &str| Load {
        address: process.address,
        concurrency,
        conversations,
        depths,
        asks: Arc::clone(asks),
        session: target.remembers().then(|| format!("{name}-{session}")),
        reply,
    };
    let warm_up = if target.remembers() { 0..1 } else { scenario.depths() };
    load(scenario.concurrency, (conversations / 8).max(1), warm_up, "warm-up").run().await?;
    if target.remembers() && scenario.turns > 0 {
        load(SEEDERS, conversations, 0..scenario.turns, "measured").run().await?;
    }
    // Long enough for what the seeding left behind, such as the work of a connection that ended.
    tokio::time::sleep(Duration::from_millis(50)).await;

    let before = process.cpu();
    let Measured { samples, wall } =
        load(scenario.concurrency, conversations, scenario.depths(), "measured").run().await?;
    let after = process.cpu();
    let cpu = before.zip(after).map(|(before, after)| after.saturating_sub(before));
    Ok(Block::new(samples, wall, cpu.filter(|_| target != Target::Direct)))
}
