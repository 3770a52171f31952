//! Work for a server to fail under: callers that append without pause, and what they find afterwards.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{task::JoinSet, time::Instant};
use tower_session_memory::{
    history::{Record, RecordId},
    session::SessionKey,
    store::{Appended, Cursor, HistoryStore, PostgresStore},
};

use super::{
    server::PATIENCE,
    support::{key, turn},
};

/// Sessions that the callers share.
const SESSIONS: usize = 5;

/// How often each thing fails: `SESSION_MEMORY_POSTGRES_FAULTS` sets it; 3 by default.
pub(crate) fn faults() -> u64 {
    std::env::var("SESSION_MEMORY_POSTGRES_FAULTS")
        .map_or(3, |faults| faults.parse().expect("SESSION_MEMORY_POSTGRES_FAULTS is a number"))
}

/// Callers at work.
pub(crate) struct Load {
    callers: JoinSet<Caller>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    acknowledged: AtomicU64,
    failed: AtomicU64,
}

/// One caller, and what it knows of its turns. Like the layer it sends a turn again until the store has
/// answered; and like a client that left, or a replica that died, it gives some up instead.
struct Caller {
    number: usize,
    store: PostgresStore,
    key: SessionKey,
    at: Option<Cursor>,
    log: HashSet<RecordId>,
    sent: Vec<(Record, Fate)>,
    errors: u64,
    forgotten: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Acknowledged,
    /// An error, and then it was given up: it may be stored, once.
    Unknown,
}

impl Load {
    /// The callers go by these stores, as if each were a replica.
    pub(crate) fn start(stores: &[PostgresStore], callers: usize) -> Self {
        let shared = Arc::<Shared>::default();
        let callers = (0..callers).map(|number| {
            let caller = Caller {
                number,
                store: stores[number % stores.len()].clone(),
                key: key(&format!("session-{}", number % SESSIONS)),
                at: None,
                log: HashSet::new(),
                sent: Vec::new(),
                errors: 0,
                forgotten: 0,
            };
            caller.run(shared.clone())
        });
        Self { callers: callers.collect(), shared }
    }

    /// Waits until `turns` more turns are acknowledged.
    pub(crate) async fn progress(&self, turns: u64) {
        more(&self.shared.acknowledged, turns).await;
    }

    /// Waits until `calls` more calls have failed.
    pub(crate) async fn trouble(&self, calls: u64) {
        more(&self.shared.failed, calls).await;
    }

    /// Stops the callers, and compares what they know with what the store holds.
    pub(crate) async fn finish(self, store: &PostgresStore) -> Findings {
        self.shared.stop.store(true, Ordering::Relaxed);
        let callers = tokio::time::timeout(PATIENCE, self.callers.join_all()).await.expect("the callers end");
        let mut findings = Findings::default();
        for session in 0..SESSIONS {
            let key = key(&format!("session-{session}"));
            let stored = store.load(&key, None).await.expect("the session loads").records;
            let mut places: HashMap<RecordId, Vec<usize>> = HashMap::new();
            for (place, turn) in stored.iter().enumerate() {
                places.entry(turn.id()).or_default().push(place);
            }
            findings.stored += stored.len();
            for caller in callers.iter().filter(|caller| caller.key == key) {
                findings.compare(caller, &stored, &mut places);
            }
            findings.unknown += places.len();
        }
        findings
    }
}

async fn more(count: &AtomicU64, more: u64) {
    let goal = count.load(Ordering::Relaxed) + more;
    let until = Instant::now() + PATIENCE;
    while count.load(Ordering::Relaxed) < goal {
        assert!(Instant::now() < until, "the callers are stuck");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

impl Caller {
    async fn run(mut self, shared: Arc<Shared>) -> Self {
        while !shared.stop.load(Ordering::Relaxed) {
            let number = self.sent.len();
            let padding = "and so on ".repeat(number % 7 * 10);
            let turn = turn(&self.key, &format!("caller {} says {number} {padding}", self.number));
            let fate = self.insist(&turn, number % 2 == 1, &shared).await;
            shared.acknowledged.fetch_add(u64::from(fate == Fate::Acknowledged), Ordering::Relaxed);
            self.sent.push((turn, fate));
        }
        self
    }

    async fn insist(&mut self, turn: &Record, gives_up: bool, shared: &Shared) -> Fate {
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = match self.catch_up().await {
                Ok(at) => self.store.append(&self.key, &at, turn).await.map(|answer| (at, answer)),
                Err(error) => Err(error),
            };
            match answer {
                Ok((_, Appended::Gone)) => panic!("nobody deleted it"),
                Ok(_) => return Fate::Acknowledged,
                Err(error) => {
                    assert!(error.is_transient(), "{error:?}");
                    assert!(Instant::now() < until, "{PATIENCE:?} of errors, the last: {error:?}");
                    self.errors += 1;
                    shared.failed.fetch_add(1, Ordering::Relaxed);
                    if gives_up {
                        return Fate::Unknown;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        }
    }

    /// Loads what is new, and looks whether the turns that were acknowledged are there.
    async fn catch_up(&mut self) -> Result<Cursor, tower_session_memory::store::StoreError> {
        let loaded = self.store.load(&self.key, self.at.as_ref()).await?;
        if loaded.from_start {
            self.log.clear();
        }
        self.log.extend(loaded.records.iter().map(Record::id));
        self.forgotten += match self.sent.last() {
            Some((turn, Fate::Acknowledged)) if !self.log.contains(&turn.id()) => 1,
            _ => 0,
        };
        self.at = Some(loaded.cursor);
        Ok(loaded.cursor)
    }
}

/// What the comparison found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    acknowledged: usize,
    given_up: usize,
    errors: u64,
    stored: usize,
    lost: usize,
    doubled: usize,
    torn: usize,
    disordered: usize,
    unknown: usize,
    forgotten: u64,
}

impl Findings {
    fn compare(&mut self, caller: &Caller, stored: &[Record], places: &mut HashMap<RecordId, Vec<usize>>) {
        self.errors += caller.errors;
        self.forgotten += caller.forgotten;
        let mut newest = None;
        for (turn, fate) in &caller.sent {
            let found = places.remove(&turn.id()).unwrap_or_default();
            match fate {
                Fate::Acknowledged => self.acknowledged += 1,
                Fate::Unknown => self.given_up += 1,
            }
            self.lost += usize::from(*fate == Fate::Acknowledged && found.is_empty());
            self.doubled += usize::from(found.len() > 1);
            self.torn += found.iter().filter(|place| stored[**place].bytes() != turn.bytes()).count();
            // One that was given up may still have been on its way when the next was sent.
            if *fate == Fate::Acknowledged {
                self.disordered += usize::from(found.first().copied() < newest);
                newest = found.first().copied().max(newest);
            }
        }
    }

    /// Prints the counts, and fails unless there was work and nothing is wrong.
    #[track_caller]
    pub(crate) fn check(&self, what: &str) {
        println!("{what}: {self}");
        assert!(self.acknowledged > 0, "there was work: {self}");
        let faults = self.lost + self.doubled + self.torn + self.disordered + self.unknown;
        assert_eq!((faults, self.forgotten), (0, 0), "{what}: {self}");
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} turns acknowledged, {} given up after an error, {} calls failed, {} turns stored; \
             {} lost, {} doubled, {} torn, {} out of order, {} never sent, {} missing from a later load",
            self.acknowledged,
            self.given_up,
            self.errors,
            self.stored,
            self.lost,
            self.doubled,
            self.torn,
            self.disordered,
            self.unknown,
            self.forgotten
        )
    }
}
