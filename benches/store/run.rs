//! What is done to each store, in which order, and what is taken down of it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use tower_session_memory::{
    history::{Author, Parent, Record},
    session::SessionKey,
    store::{Appended, Cursor},
};

use crate::{
    common::{cpu, machine::Machine},
    error::BoxError,
    operation::Operation,
    options::Options,
    report::{self, Block, Row},
    servers::Traffic,
    targets::{Store, Target},
    turns,
};

/// Sessions of one length.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) turns: usize,
    sessions: usize,
    /// How often each session is asked in a repetition.
    rounds: usize,
}

const SCENARIOS: [Scenario; 4] = [
    Scenario { turns: 1, sessions: 200, rounds: 1 },
    Scenario { turns: 20, sessions: 100, rounds: 1 },
    Scenario { turns: 200, sessions: 20, rounds: 3 },
    Scenario { turns: 2000, sessions: 4, rounds: 10 },
];

const COMMAND: &str = "cargo bench --features postgres,redis,sqlite --bench store";

/// Operations of a kind whose traffic is counted, one by one.
const COUNTED: usize = 5;

/// Measures everything and prints the table.
///
/// # Errors
///
/// When a server does not start, a call fails, or a load does not answer what was appended.
pub(crate) fn run(options: &Options) -> Result<(), BoxError> {
    let machine = Machine::look();
    // One thread, so that no figure depends on which of several was woken. SQLite has threads of its own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let rows = runtime.block_on(async {
        let targets = Target::all(directory.path()).await?;
        let mut rows = Vec::new();
        for scenario in SCENARIOS {
            rows.extend(measure(scenario, &targets, options).await?);
        }
        Ok::<_, BoxError>(rows)
    })?;
    println!("{}\n{}", machine.describe(COMMAND, options.repetitions), report::markdown(&rows));
    report::check(&rows)
}

/// The repetitions of a scenario, interleaved: each asks every store, beginning with another one.
async fn measure(scenario: Scenario, targets: &[Target], options: &Options) -> Result<Vec<Row>, BoxError> {
    let scenario = Scenario { sessions: (scenario.sessions / options.smaller).max(2), ..scenario };
    let mut blocks: HashMap<(&str, Operation), Vec<Block>> = HashMap::new();
    let mut seeded: HashMap<&str, Vec<Session>> = HashMap::new();
    for repetition in 0..options.repetitions {
        eprintln!("{} turns: repetition {} of {}", scenario.turns, repetition + 1, options.repetitions);
        for place in 0..targets.len() {
            let target = &targets[(repetition + place) % targets.len()];
            // A session grows while it is measured: by nothing that counts, if it is long.
            if scenario.turns < 200 || repetition == 0 {
                let sessions = seed(scenario, target, repetition).await?;
                seeded.insert(target.name, sessions);
            }
            let sessions = seeded.get_mut(target.name).ok_or("no sessions")?;
            for operation in Operation::ALL {
                let block = measure_block(scenario, target, operation, sessions).await?;
                blocks.entry((target.name, operation)).or_default().push(block);
            }
        }
    }
    let mut rows = Vec::new();
    for target in targets {
        for operation in Operation::ALL {
            let traffic = match seeded.get_mut(target.name) {
                Some(sessions) => count(target, operation, sessions).await?,
                None => None,
            };
            let blocks = blocks.remove(&(target.name, operation)).unwrap_or_default();
            rows.push(Row { store: target.name, turns: scenario.turns, operation, blocks, traffic });
        }
    }
    Ok(rows)
}

/// A session, and what its log must hold.
struct Session {
    key: SessionKey,
    turns: usize,
    end: Cursor,
}

impl Session {
    /// A turn of twice 200 bytes.
    fn next_turn(&self) -> Record {
        let text = "It was the best of times, it was the worst of times. ".repeat(4);
        let message = |role: &str| format!(r#"{{"role":"{role}","content":"{}"}}"#, &text[..200]);
        let mut parts = turns::parts(&message("user"), Parent::Previous);
        parts.reply = vec![turns::message(Author::Model, &message("assistant"))];
        parts.finish_reason = Some("stop".to_owned());
        parts.model = Some("a-model".to_owned());
        parts.into_record(&self.key)
    }

    async fn append(&mut self, store: &Store, turn: &Record) -> Result<(), BoxError> {
        match store.append_dyn(&self.key, &self.end, turn).await? {
            Appended::Appended { cursor: end, .. } => {
                (self.end, self.turns) = (end, self.turns + 1);
                Ok(())
            }
            other => Err(format!("a turn was not appended: {other:?}").into()),
        }
    }

    async fn load(&self, store: &Store) -> Result<(), BoxError> {
        let loaded = store.load_dyn(&self.key, None.into()).await?;
        match loaded.records.len() == self.turns && loaded.cursor == self.end {
            true => Ok(()),
            false => Err(format!("a load answered {} turns of {}", loaded.records.len(), self.turns).into()),
        }
    }
}

async fn seed(scenario: Scenario, target: &Target, generation: usize) -> Result<Vec<Session>, BoxError> {
    let mut sessions = Vec::new();
    for number in 0..scenario.sessions {
        let key = turns::key(&format!("{}-{generation}-{number}", scenario.turns));
        let end = target.plain.load_dyn(&key, None.into()).await?.cursor;
        sessions.push(Session { key, turns: 0, end });
    }
    let mut seeding = tokio::task::JoinSet::new();
    for mut session in sessions {
        let store = target.plain.clone();
        seeding.spawn(async move {
            for _ in 0..scenario.turns {
                session.append(&store, &session.next_turn()).await?;
            }
            Ok::<_, BoxError>(session)
        });
    }
    seeding.join_all().await.into_iter().collect()
}

/// One repetition of one operation on one store.
async fn measure_block(
    scenario: Scenario,
    target: &Target,
    operation: Operation,
    sessions: &mut [Session],
) -> Result<Block, BoxError> {
    let mut block = Block::default();
    for _ in 0..scenario.rounds {
        let prepared = prepare(&target.plain, &target.cached, operation, sessions).await?;
        // What the preparation left behind is done by then: a commit's bookkeeping, a server's statistics.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let before = (cpu::of(std::process::id()), target.server_cpu());
        for (session, turn) in sessions.iter_mut().zip(&prepared) {
            let started = Instant::now();
            operate(&target.plain, &target.cached, operation, session, turn).await?;
            block.samples.push(started.elapsed());
        }
        let after = (cpu::of(std::process::id()), target.server_cpu());
        block.ours += after.0.zip(before.0).map_or(Duration::ZERO, |(after, before)| after - before);
        block.server = match after.1.zip(before.1) {
            Some((after, before)) => Some(block.server.unwrap_or_default() + after.saturating_sub(before)),
            None => None,
        };
    }
    Ok(block)
}

/// What one operation moves: the median of a few, each counted by itself. `None` without a server.
async fn count(
    target: &Target,
    operation: Operation,
    sessions: &mut [Session],
) -> Result<Option<Traffic>, BoxError> {
    let Some(counted) = &target.counted else { return Ok(None) };
    let sessions = &mut sessions[..2];
    let mut moved = Vec::new();
    // The first ones prepare statements and load scripts.
    for _ in 0..COUNTED + 2 {
        let prepared = prepare(&target.plain, &counted.cached, operation, sessions).await?;
        for (session, turn) in sessions.iter_mut().zip(&prepared) {
            let before = counted.relay.traffic();
            operate(&counted.plain, &counted.cached, operation, session, turn).await?;
            moved.push(counted.relay.traffic() - before);
        }
    }
    moved.drain(..4);
    moved.sort();
    Ok(moved.get(moved.len() / 2).copied())
}

/// Brings the sessions to where the operation begins, and makes the turns that it appends.
async fn prepare(
    plain: &Store,
    cached: &Store,
    operation: Operation,
    sessions: &mut [Session],
) -> Result<Vec<Record>, BoxError> {
    let mut prepared = Vec::new();
    for session in sessions {
        if matches!(operation, Operation::Unchanged | Operation::OneNew) {
            session.load(cached).await?;
        }
        let turn = session.next_turn();
        if operation == Operation::OneNew {
            session.append(plain, &turn).await?;
        }
        prepared.push(turn);
    }
    Ok(prepared)
}

async fn operate(
    plain: &Store,
    cached: &Store,
    operation: Operation,
    session: &mut Session,
    turn: &Record,
) -> Result<(), BoxError> {
    match operation {
        Operation::Whole => session.load(plain).await,
        Operation::Unchanged | Operation::OneNew => session.load(cached).await,
        Operation::Append => session.append(plain, turn).await,
    }
}
