//! What is done to the stores, and what is taken down of it.

use std::time::{Duration, Instant};

use tower_session_memory::{
    history::Record,
    session::SessionKey,
    store::{Appended, Cursor},
};

use crate::{
    common::{
        cpu,
        machine::Machine,
        stats::{median, quantile, shown, sorted},
    },
    error::BoxError,
    fill::{Filled, Store},
    options::Options,
    turns,
};

const COMMAND: &str = "cargo bench --features postgres,redis,sqlite --bench scale";

/// Number of parts in which the store is filled; the sessions that are measured come between them.
const PARTS: usize = 10;

/// A session that is measured.
struct Sample {
    key: SessionKey,
    end: Cursor,
    turns: usize,
    next: Option<Record>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Whole,
    Unchanged,
    Append,
}

const OPERATIONS: [(Operation, &str); 3] = [
    (Operation::Whole, "load of all"),
    (Operation::Unchanged, "load, nothing new"),
    (Operation::Append, "append"),
];

/// One repetition of one operation.
struct Block {
    each: Vec<Duration>,
    cpu: Duration,
}

/// Measures everything and prints the tables.
///
/// # Errors
///
/// When a server does not start, a call fails, or a load does not answer what was appended.
pub(crate) fn run(options: &Options) -> Result<(), BoxError> {
    let machine = Machine::look();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let mut tables = Vec::new();
    for store in &options.stores {
        tables.push(runtime.block_on(measure(store, directory.path(), options))?);
    }
    println!("{}\n{HEAD}\n{}", machine.describe(COMMAND, options.repetitions), tables.concat());
    Ok(())
}

const HEAD: &str = "| store | operation | with | p50 µs | CPU µs | with | p50 µs | CPU µs | p50 × | CPU × |\n\
                    |---|---|--:|--:|--:|--:|--:|--:|--:|--:|";

async fn measure(name: &str, directory: &std::path::Path, options: &Options) -> Result<String, BoxError> {
    let (few, mut of_few) = filled(name, directory, options.few, options).await?;
    let (many, mut of_many) = filled(name, directory, options.many, options).await?;
    let mut rows = String::new();
    for (operation, title) in OPERATIONS {
        let mut blocks = [Vec::new(), Vec::new()];
        for _ in 0..options.repetitions {
            blocks[0].push(repeat(&few, &mut of_few, operation).await?);
            blocks[1].push(repeat(&many, &mut of_many, operation).await?);
        }
        let with = [options.few, options.many].map(|count| format!("{count} sessions"));
        rows.push_str(&row(name, title, &with, &blocks));
    }
    rows.push_str(&tails(name, &few, options).await?);
    Ok(rows)
}

async fn filled(
    name: &str,
    directory: &std::path::Path,
    sessions: usize,
    options: &Options,
) -> Result<(Filled, Vec<Sample>), BoxError> {
    eprintln!("{name}: {sessions} sessions");
    let filled = Filled::start(name, directory, &format!("{sessions}.db")).await?;
    let mut samples = Vec::new();
    for part in 0..PARTS {
        filled.add(part * sessions / PARTS, (part + 1) * sessions / PARTS)?;
        for number in 0..options.samples / PARTS {
            let mut sample = sample(&filled.store, &format!("sample-{part}-{number}")).await?;
            sample.append(&filled.store).await?;
            samples.push(sample);
        }
    }
    filled.settle().await?;
    // Neighbours in the store are not asked one after the other.
    let stride = PARTS + 1;
    let mut spread: Vec<Option<Sample>> = samples.into_iter().map(Some).collect();
    let count = spread.len();
    let samples =
        (0..stride).flat_map(|start| (start..count).step_by(stride)).filter_map(|at| spread[at].take());
    Ok((filled, samples.collect()))
}

async fn sample(store: &Store, id: &str) -> Result<Sample, BoxError> {
    let key = turns::key(id);
    let end = store.load_dyn(&key, None.into()).await?.cursor;
    Ok(Sample { key, end, turns: 0, next: None })
}

impl Sample {
    fn prepare(&mut self) {
        let text = "It was the best of times, it was the worst of times. ".repeat(4);
        self.next = Some(turns::turn(&self.key, &format!(r#"{{"role":"user","content":"{text}"}}"#)));
    }

    async fn append(&mut self, store: &Store) -> Result<(), BoxError> {
        if self.next.is_none() {
            self.prepare();
        }
        let turn = self.next.take().ok_or("no turn")?;
        match store.append_dyn(&self.key, &self.end, &turn).await? {
            Appended::Appended { cursor: end, .. } => {
                (self.end, self.turns) = (end, self.turns + 1);
                Ok(())
            }
            other => Err(format!("a turn was not appended: {other:?}").into()),
        }
    }

    async fn load(&self, store: &Store, after: Option<&Cursor>, expected: usize) -> Result<(), BoxError> {
        let loaded = store.load_dyn(&self.key, after.into()).await?;
        match loaded.records.len() == expected && loaded.cursor == self.end {
            true => Ok(()),
            false => Err(format!("a load answered {} turns of {expected}", loaded.records.len()).into()),
        }
    }
}

async fn repeat(filled: &Filled, samples: &mut [Sample], operation: Operation) -> Result<Block, BoxError> {
    samples.iter_mut().for_each(Sample::prepare);
    let mut each = Vec::new();
    let before = spent(filled);
    for sample in samples {
        let started = Instant::now();
        match operation {
            Operation::Whole => sample.load(&filled.store, None, sample.turns).await?,
            Operation::Unchanged => sample.load(&filled.store, Some(&sample.end), 0).await?,
            Operation::Append => sample.append(&filled.store).await?,
        }
        each.push(started.elapsed());
    }
    Ok(Block { each, cpu: spent(filled).saturating_sub(before) })
}

/// CPU time of this process and of the server.
fn spent(filled: &Filled) -> Duration {
    cpu::of(std::process::id()).unwrap_or_default() + filled.server_cpu()
}

/// The newest turn of a long session beside that of a short one.
async fn tails(name: &str, filled: &Filled, options: &Options) -> Result<String, BoxError> {
    let lengths = [10, options.long];
    let mut sessions = Vec::new();
    for turns in lengths {
        let mut session = sample(&filled.store, &format!("of-{turns}-turns")).await?;
        let mut before = session.end;
        for _ in 0..turns {
            before = session.end;
            session.append(&filled.store).await?;
        }
        // So that the store has seen where the log ends, as it has in a conversation.
        session.load(&filled.store, Some(&before), 1).await?;
        sessions.push((session, before));
    }
    let mut blocks = [Vec::new(), Vec::new()];
    for _ in 0..options.repetitions {
        for ((session, before), blocks) in sessions.iter().zip(&mut blocks) {
            let spent_before = spent(filled);
            let mut each = Vec::new();
            for _ in 0..options.samples {
                let started = Instant::now();
                session.load(&filled.store, Some(before), 1).await?;
                each.push(started.elapsed());
            }
            blocks.push(Block { each, cpu: spent(filled).saturating_sub(spent_before) });
        }
    }
    let with = lengths.map(|turns| format!("{turns} turns"));
    Ok(row(name, "load of the newest turn", &with, &blocks))
}

fn row(name: &str, title: &str, with: &[String; 2], blocks: &[Vec<Block>; 2]) -> String {
    let p50 = |blocks: &[Block]| {
        let all = blocks.iter().flat_map(|block| block.each.iter().copied().map(micros));
        Some(quantile(&sorted(all), 0.5))
    };
    let cpu = |blocks: &[Block]| {
        median(blocks.iter().map(|block| Some(micros(block.cpu) / block.each.len() as f64)))
    };
    let ratio =
        |one: Option<f64>, other: Option<f64>| shown(one.zip(other).map(|(one, other)| one / other), 2);
    let [few, many] = blocks;
    format!(
        "| {name} | {title} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
        with[0],
        shown(p50(few), 0),
        shown(cpu(few), 0),
        with[1],
        shown(p50(many), 0),
        shown(cpu(many), 0),
        ratio(p50(many), p50(few)),
        ratio(cpu(many), cpu(few)),
    )
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
