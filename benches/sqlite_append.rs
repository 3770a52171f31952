//! What a durable append costs on SQLite: by one caller and by 64 at once through the store's group commit, beside
//! the least that one commit for each turn takes, and one `fdatasync`, of the same disk in the same run.
//!
//! ```sh
//! cargo bench --features sqlite --bench sqlite_append             # seconds
//! cargo bench --features sqlite --bench sqlite_append -- --quick  # one small repetition: does it still run?
//! ```
//!
//! The repetitions are interleaved; the figures are their medians, of the disk under the build's `target/`
//! directory. CPU is that of the whole process, SQLite's threads and the kernel's part of their calls included.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod common;
#[path = "../tests/common/turns.rs"]
mod turns;

use std::{
    io::Write,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use common::{
    cpu,
    machine::Machine,
    stats::{median, quantile, shown, sorted},
};
use tokio::{runtime::Runtime, task::JoinSet};
use tower_session_memory::{
    history::{Author, Parent, Record},
    session::SessionKey,
    store::{Cursor, Epoch, HistoryStore, SqliteStore},
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

const COMMAND: &str = "cargo bench --features sqlite --bench sqlite_append";

/// Appends of one caller, and commits of one turn each, in a repetition.
const ALONE: usize = 1_000;
/// Appends of each of many callers.
const EACH: usize = 400;
const WRITERS: usize = 64;

/// What one repetition of one of the ways came to.
struct Block {
    took: Duration,
    cpu: Option<Duration>,
    each: Vec<Duration>,
}

impl Block {
    fn rate(&self) -> f64 {
        self.each.len() as f64 / self.took.as_secs_f64()
    }

    fn cpu(&self) -> Option<f64> {
        Some(micros(self.cpu?) / self.each.len() as f64)
    }

    fn within(&self, part: f64) -> f64 {
        quantile(&sorted(self.each.iter().copied().map(micros)), part)
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let asked = |word: &str| arguments.iter().any(|argument| argument == word);
    if !asked("--bench") || asked("--test") {
        println!("sqlite_append: nothing is measured by a test run; use cargo bench");
        return ExitCode::SUCCESS;
    }
    match run(asked("--quick")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sqlite_append: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(quick: bool) -> Result<(), BoxError> {
    let machine = Machine::look();
    let (repetitions, smaller) = if quick { (1, 20) } else { (5, 1) };
    let runtime = Runtime::new()?;
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let path = |name| directory.path().join(name);
    let bare = bare_connection(&path("bare.db"))?;
    let store = runtime.block_on(SqliteStore::open(path("sessions.db")))?;
    let mut ways: [(&str, Vec<Block>); 4] = [
        ("one `fdatasync` of 4 KiB", Vec::new()),
        ("one commit a turn, bare", Vec::new()),
        ("the store, one writer", Vec::new()),
        ("the store, 64 writers", Vec::new()),
    ];
    for _ in 0..repetitions {
        ways[0].1.push(syncs(&path("plain"), ALONE / smaller)?);
        ways[1].1.push(commits(&bare, ALONE / smaller)?);
        ways[2].1.push(runtime.block_on(appends(&store, 1, ALONE / smaller))?);
        ways[3].1.push(runtime.block_on(appends(&store, WRITERS, EACH / smaller))?);
    }
    runtime.block_on(store.close());
    println!("{}", machine.describe(COMMAND, repetitions));
    report(&ways);
    Ok(())
}

fn report(ways: &[(&str, Vec<Block>); 4]) {
    let of = |blocks: &[Block], what: &dyn Fn(&Block) -> Option<f64>| median(blocks.iter().map(what));
    println!("| | turns/s | ÷ one commit a turn | CPU µs | p50 µs | ÷ `fdatasync` | p99 µs |");
    println!("|---|--:|--:|--:|--:|--:|--:|");
    let rate = |way: usize| of(&ways[way].1, &|block| Some(block.rate()));
    let p50 = |way: usize| of(&ways[way].1, &|block| Some(block.within(0.5)));
    let ratio = |one: Option<f64>, other: Option<f64>| Some(one? / other?);
    for (way, (name, blocks)) in ways.iter().enumerate() {
        println!(
            "| {name} | {} | {} | {} | {} | {} | {} |",
            shown(rate(way), 0),
            shown(ratio(rate(way), rate(1)), 1),
            shown(of(blocks, &Block::cpu), 1),
            shown(p50(way), 0),
            shown(ratio(p50(way), p50(0)), 1),
            shown(of(blocks, &|block| Some(block.within(0.99))), 0),
        );
    }
}

/// Writes one page after the other, each to the disk.
fn syncs(path: &Path, count: usize) -> Result<Block, BoxError> {
    let mut file = std::fs::File::create(path)?;
    one_by_one(count, || {
        file.write_all(&[7; 4096])?;
        Ok(file.sync_data()?)
    })
}

/// The least that a durable insert takes, with the settings of the store.
fn commits(connection: &rusqlite::Connection, count: usize) -> Result<Block, BoxError> {
    let turn = turn(&turns::key("bare"));
    one_by_one(count, || {
        let mut insert = connection.prepare_cached("INSERT INTO turns (record) VALUES (?1)")?;
        insert.execute([&turn.bytes()[..]])?;
        Ok(())
    })
}

fn one_by_one(count: usize, mut what: impl FnMut() -> Result<(), BoxError>) -> Result<Block, BoxError> {
    let mut each = Vec::with_capacity(count);
    let (before, started) = (cpu::of(std::process::id()), Instant::now());
    for _ in 0..count {
        let started = Instant::now();
        what()?;
        each.push(started.elapsed());
    }
    Ok(Block { took: started.elapsed(), cpu: since(before), each })
}

/// Appends `share` turns from each of `writers` tasks, each with a session of its own. The turns are made before.
async fn appends(store: &SqliteStore, writers: usize, share: usize) -> Result<Block, BoxError> {
    let at = Cursor::start_of(Epoch::UNBORN);
    let keys = (0..writers).map(|writer| turns::key(&format!("{writers}-{writer}")));
    let work: Vec<(SessionKey, Vec<Record>)> = keys
        .map(|key| {
            let turns = (0..share).map(|_| turn(&key)).collect();
            (key, turns)
        })
        .collect();
    let mut tasks = JoinSet::new();
    let (before, started) = (cpu::of(std::process::id()), Instant::now());
    for (key, turns) in work {
        let store = store.clone();
        tasks.spawn(async move {
            let mut each = Vec::with_capacity(turns.len());
            for turn in turns {
                let started = Instant::now();
                store.append(&key, &at, &turn).await?;
                each.push(started.elapsed());
            }
            Ok::<_, BoxError>(each)
        });
    }
    let mut each = Vec::with_capacity(writers * share);
    while let Some(done) = tasks.join_next().await {
        each.extend(done??);
    }
    Ok(Block { took: started.elapsed(), cpu: since(before), each })
}

fn since(before: Option<Duration>) -> Option<Duration> {
    Some(cpu::of(std::process::id())?.saturating_sub(before?))
}

fn bare_connection(path: &Path) -> Result<rusqlite::Connection, BoxError> {
    let connection = rusqlite::Connection::open(path)?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON;
         CREATE TABLE turns (row INTEGER PRIMARY KEY, record BLOB NOT NULL) STRICT;",
    )?;
    Ok(connection)
}

/// A turn of about 2 KiB.
fn turn(key: &SessionKey) -> Record {
    let message = |role: &str| format!(r#"{{"role":"{role}","content":"{}"}}"#, "x".repeat(900));
    let mut parts = turns::parts(&message("user"), Parent::Previous);
    parts.reply = vec![turns::message(Author::Model, &message("assistant"))];
    parts.into_record(key)
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
