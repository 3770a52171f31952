//! Appends from many tasks while something goes wrong, and what became of them.

use std::{
    collections::HashSet,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;
use tower_session_memory::{
    history::{Record, RecordId},
    store::{Appended, Cursor, HistoryStore, RedisStore, StoreErrorKind, redis::RedisBuilder},
};

use crate::redis::support::{key, turn};

/// How much is done of what can be done any number of times: `SESSION_MEMORY_FAULTS`, 1 by default.
pub(crate) fn times(count: u32) -> u32 {
    let factor = std::env::var("SESSION_MEMORY_FAULTS")
        .map_or(1, |factor| factor.parse().expect("SESSION_MEMORY_FAULTS is a number"));
    count * factor
}

/// How long a call may take on a machine that has other things to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The settings of a store that waits for answers and sends nothing twice.
pub(crate) fn unhurried(url: impl AsRef<str>) -> RedisBuilder {
    RedisStore::builder(url).with_timeouts(PATIENCE, PATIENCE)
}

/// A store with the time limits of calls that are to fail. On a busy machine they may be over before it is connected:
/// it tries again.
pub(crate) async fn brief(url: &str, limits: impl Fn(RedisBuilder) -> RedisBuilder) -> RedisStore {
    let until = Instant::now() + PATIENCE;
    loop {
        match limits(RedisStore::builder(url)).open().await {
            Ok(store) => return store,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
    }
}

/// An append to the session `a` whose turn is stored, and the store cannot know. On a busy machine its time may be
/// over before the turn is sent, or before the server has it: it is sent until `look` finds it.
pub(crate) async fn unknown(store: &RedisStore, at: &Cursor, turn: &Record, look: &RedisStore) {
    let until = Instant::now() + PATIENCE;
    let mut undone = true;
    loop {
        let error = store.append(&key("a"), at, turn).await.unwrap_err();
        undone &= error.kind() == StoreErrorKind::Unavailable;
        let stored = look.load(&key("a"), None).await.unwrap().records;
        let found = stored.iter().any(|stored| stored.id() == turn.id());
        match error.kind() {
            StoreErrorKind::Timeout if found => return,
            StoreErrorKind::Timeout => {}
            StoreErrorKind::Unavailable => assert!(!(undone && found), "said to be undone: {error:?}"),
            _ => panic!("{error:?}"),
        }
        assert!(Instant::now() < until, "{error:?}");
    }
}

/// Appends this turn to the session `a` through a store that finds its server again, and answers the cursor after it.
pub(crate) async fn again(store: &RedisStore, at: &Cursor, turn: &Record) -> Cursor {
    let until = Instant::now() + PATIENCE;
    loop {
        match store.append(&key("a"), at, turn).await {
            Ok(Appended::Appended { cursor, .. }) => return cursor,
            // An attempt before had no answer in time.
            Ok(Appended::AlreadyThere(cursor)) if cursor.newest == Some(turn.id()) => return cursor,
            Ok(other) => panic!("{other:?}"),
            Err(error) => assert!(error.is_transient() && Instant::now() < until, "{error:?}"),
        }
    }
}

/// A store that tries for longer than any fault lasts.
pub(crate) async fn patient(url: &str) -> RedisStore {
    let builder = RedisStore::builder(url).with_timeouts(Duration::from_millis(500), Duration::from_secs(30));
    builder.open().await.unwrap()
}

/// Appends from many tasks, each to a session of its own, until `end` is set.
pub(crate) struct Load {
    tasks: JoinSet<(String, Vec<RecordId>)>,
    end: Arc<AtomicBool>,
    done: Arc<AtomicU32>,
    /// Of each session.
    each: Vec<Arc<AtomicU32>>,
    unanswered: Arc<AtomicU32>,
}

/// What became of acknowledged turns.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) acknowledged: usize,
    pub(crate) stored: usize,
    pub(crate) lost: usize,
    pub(crate) doubled: usize,
    /// Stored out of the order of sending, or never sent to this session.
    pub(crate) misplaced: usize,
    /// Calls that ended without an answer, and whose turn was sent again.
    pub(crate) unanswered: u32,
}

impl Load {
    pub(crate) fn start(store: &RedisStore, tasks: usize) -> Self {
        Self::of(store, (0..tasks).map(|task| format!("session-{task}")).collect())
    }

    /// The same to these sessions.
    pub(crate) fn of(store: &RedisStore, sessions: Vec<String>) -> Self {
        let (end, done, unanswered) = (Arc::default(), Arc::default(), Arc::default());
        let each = sessions.iter().map(|_| Arc::default()).collect();
        let mut load = Self { tasks: JoinSet::new(), end, done, each, unanswered };
        for (task, id) in sessions.into_iter().enumerate() {
            let (store, end) = (store.clone(), load.end.clone());
            let (done, unanswered) = (load.done.clone(), load.unanswered.clone());
            let own = load.each[task].clone();
            load.tasks.spawn(async move {
                let mut acknowledged = Vec::new();
                let key = key(&id);
                let mut at = store.load(&key, None).await.unwrap().cursor;
                while !end.load(Ordering::Relaxed) {
                    let turn = turn(&key, "hello");
                    at = loop {
                        match store.append(&key, &at, &turn).await {
                            Ok(Appended::Appended { cursor, .. } | Appended::AlreadyThere(cursor)) => {
                                break cursor;
                            }
                            Ok(Appended::Gone) => panic!("nothing was deleted"),
                            Err(error) if error.is_transient() => unanswered.fetch_add(1, Ordering::Relaxed),
                            Err(error) => panic!("{error:?}"),
                        };
                    };
                    acknowledged.push(turn.id());
                    done.fetch_add(1, Ordering::Relaxed);
                    own.fetch_add(1, Ordering::Relaxed);
                }
                (id, acknowledged)
            });
        }
        load
    }

    /// How many turns were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u32 {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits for `turns` more acknowledged turns.
    pub(crate) async fn more(&self, turns: u32) {
        let goal = self.done.load(Ordering::Relaxed) + turns;
        tokio::time::timeout(Duration::from_secs(60), async {
            while self.done.load(Ordering::Relaxed) < goal {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("appends go on");
    }

    /// Waits until every session has `turns` more acknowledged turns.
    pub(crate) async fn more_of_each(&self, turns: u32) {
        let count = || self.each.iter().map(|done| done.load(Ordering::Relaxed)).collect::<Vec<_>>();
        let before = count();
        let behind = || count().iter().zip(&before).filter(|(now, before)| **now < **before + turns).count();
        let all = async {
            while behind() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), all).await;
        assert!(waited.is_ok(), "{} of {} sessions take no turns", behind(), before.len());
    }

    /// Ends, prints what became of the turns, and fails unless every acknowledged one is in the store, once, in
    /// order.
    pub(crate) async fn check(self, what: &str, store: &RedisStore) {
        let findings = self.findings(what, store).await;
        assert_eq!(findings.lost, 0, "{findings}");
    }

    /// The same after an asynchronous failover: turns may be missing, and are counted.
    pub(crate) async fn findings(self, what: &str, store: &RedisStore) -> Findings {
        self.end.store(true, Ordering::Relaxed);
        let mut findings =
            Findings { unanswered: self.unanswered.load(Ordering::Relaxed), ..Default::default() };
        for (session, sent) in self.tasks.join_all().await {
            // A load checks every record, and that there are as many as the log says: a torn log is an error.
            let turns = store.load(&key(&session), None).await.unwrap().records;
            let stored: HashSet<RecordId> = turns.iter().map(|turn| turn.id()).collect();
            findings.acknowledged += sent.len();
            findings.stored += turns.len();
            findings.lost += sent.iter().filter(|id| !stored.contains(id)).count();
            findings.doubled += turns.len() - stored.len();
            // Every stored turn is found among those sent after the one before it.
            let mut rest = sent.iter();
            findings.misplaced += turns.iter().filter(|turn| !rest.any(|id| *id == turn.id())).count();
        }
        println!("{what}: {findings}");
        assert_eq!((findings.doubled, findings.misplaced), (0, 0), "{findings}");
        findings
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledged, stored, lost, doubled, misplaced, unanswered } = self;
        write!(
            f,
            "{acknowledged} turns acknowledged, {stored} stored; {lost} lost, {doubled} doubled, {misplaced} \
             misplaced, 0 torn; {unanswered} calls without an answer"
        )
    }
}
