//! The cache in front of real servers is never stale: whatever happens behind it, a load through it equals a load
//! without it at the same moment.
//!
//! `SESSION_MEMORY_TURNS` sets how many steps of chance each test takes, five to one; 150 by default.

mod behind;

use std::{fmt, num::NonZeroUsize, sync::Arc};

use tokio::task::JoinSet;
use tower_session_memory::{
    history::{Parent, Place, RecordId},
    session::SessionKey,
    store::{Appended, CacheStats, Cached, Cursor, HistoryStore, Loaded},
};

use self::behind::{Behind, Opened};
use crate::{
    common::random::{Random, seed},
    replicas::turns,
    turns::{key, records, say, turn_from},
};

macro_rules! on_servers {
    ($($scenario:ident)+) => {
        on_server!(redis = Behind::redis(false); $($scenario)+);
        on_server!(redis_sealed = Behind::redis(true); $($scenario)+);
        on_server!(postgres = Behind::postgres(false); $($scenario)+);
        on_server!(postgres_sealed = Behind::postgres(true); $($scenario)+);
    };
}

macro_rules! on_server {
    ($module:ident = $behind:expr; $($scenario:ident)+) => {
        mod $module {
            use super::Behind;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $scenario() {
                    super::$scenario($behind.await).await;
                }
            )+
        }
    };
}

on_servers! {
    whatever_happens_behind_it_a_load_equals_one_without_it
    amid_writes_a_load_lies_between_the_one_before_and_the_one_after
}

const SESSIONS: usize = 3;

/// Sizes of the caches in bytes; the last one has room for little.
const SIZES: [u64; 3] = [128 << 20, 128 << 20, 6_000];

async fn whatever_happens_behind_it_a_load_equals_one_without_it(behind: Behind) {
    let mut random = Random::new(seed());
    for max_turns in [None, NonZeroUsize::new(5)] {
        let mut world = World::new(&behind, max_turns, random.next()).await;
        behind.forget_everything().await;
        behind.save().await;
        for _ in 0..turns() * 5 / 2 {
            world.step(&behind).await;
        }
        for replica in 0..SIZES.len() {
            for session in 0..SESSIONS {
                world.compare(replica, session, None).await;
            }
        }
        println!("max_turns {max_turns:?}: {}, 0 stale", world.counts);
    }
}

/// Replicas with caches, and one store without.
struct World {
    replicas: Vec<Cached<Opened>>,
    bare: Opened,
    keys: Vec<SessionKey>,
    /// Cursors that were answered once, for each session.
    seen: Vec<Vec<Cursor>>,
    random: Random,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    compared: usize,
    appended: usize,
    gone: usize,
    deleted: usize,
    expired: usize,
    emptied: usize,
    set_back: usize,
    hits: u64,
}

impl World {
    async fn new(behind: &Behind, max_turns: Option<NonZeroUsize>, seed: u64) -> Self {
        let mut replicas = Vec::new();
        for bytes in SIZES {
            replicas.push(Cached::new(behind.open(max_turns).await).with_max_bytes(bytes));
        }
        let bare = behind.open(max_turns).await;
        let keys: Vec<_> = (0..SESSIONS).map(|id| key(&format!("session-{id}"))).collect();
        let mut seen = Vec::new();
        for key in &keys {
            seen.push(vec![bare.load(key, None).await.unwrap().cursor]);
        }
        Self { replicas, bare, keys, seen, random: Random::new(seed), counts: Counts::default() }
    }

    async fn step(&mut self, behind: &Behind) {
        let (replica, session) = (self.random.below(SIZES.len()), self.random.below(SESSIONS));
        match self.random.below(200) {
            0..80 => {
                let after = self.random.one_in(3).then(|| self.a_cursor(session));
                self.compare(replica, session, after).await;
            }
            80..176 => self.append(replica, session).await,
            176..180 => {
                self.counts.deleted += 1;
                self.replicas[replica].delete(&self.keys[session]).await.unwrap();
            }
            180..184 => {
                self.counts.deleted += 1;
                self.bare.delete(&self.keys[session]).await.unwrap();
            }
            184..187 => {
                self.counts.expired += 1;
                behind.expire(self.keys[session].id().as_str()).await;
            }
            187..190 => behind.save().await,
            190..198 => self.set_back(behind, replica, session).await,
            _ => {
                self.counts.emptied += 1;
                behind.forget_everything().await;
            }
        }
    }

    /// The server loses its newest turns, and others take their places: as many as there were, or more.
    async fn set_back(&mut self, behind: &Behind, replica: usize, session: usize) {
        // What was saved may be old, too.
        if !self.random.one_in(3) {
            behind.save().await;
        }
        self.say(session, "lost").await;
        self.compare(replica, session, None).await;
        self.counts.set_back += 1;
        behind.restore().await;
        for _ in 0..self.random.below(6) {
            self.say(session, "instead").await;
        }
        self.compare(replica, session, None).await;
    }

    /// Appends behind the back of every replica.
    async fn say(&mut self, session: usize, text: &str) {
        say(&self.bare, &self.keys[session], text).await;
        self.counts.appended += 1;
    }

    async fn compare(&mut self, replica: usize, session: usize, after: Option<Cursor>) {
        let key = &self.keys[session];
        let before = self.replicas[replica].stats();
        let found = self.replicas[replica].load(key, after.as_ref()).await.unwrap();
        let expected = self.bare.load(key, after.as_ref()).await.unwrap();
        same(&found, &expected);
        let CacheStats { hits, bytes, .. } = self.replicas[replica].stats();
        assert!(bytes <= SIZES[replica], "{bytes} bytes are kept");
        self.counts.hits += hits - before.hits;
        self.counts.compared += 1;
        self.seen[session].push(found.cursor);
    }

    /// Mostly at the newest cursor that was seen, sometimes at an older one; sometimes a branch.
    async fn append(&mut self, replica: usize, session: usize) {
        let newest = *self.seen[session].last().unwrap();
        let at = if self.random.one_in(4) { self.a_cursor(session) } else { newest };
        let branch = self.random.one_in(5);
        let parent = at
            .newest
            .filter(|_| branch)
            .map_or(Parent::Previous, |turn| Parent::At(Place { turn, items: 2 }));
        let key = &self.keys[session];
        let turn = turn_from(key, &"x".repeat(self.random.below(900)), parent);
        match self.replicas[replica].append(key, &at, &turn).await.unwrap() {
            Appended::Gone => self.counts.gone += 1,
            Appended::Appended { cursor, .. } | Appended::AlreadyThere(cursor) => {
                self.counts.appended += 1;
                self.seen[session].push(cursor);
            }
        }
    }

    fn a_cursor(&mut self, session: usize) -> Cursor {
        *self.random.pick(&self.seen[session])
    }
}

#[track_caller]
fn same(found: &Loaded, expected: &Loaded) {
    assert_eq!(found.cursor, expected.cursor, "where the log ends");
    assert_eq!(found.from_start, expected.from_start, "whether the cursor is known");
    assert_eq!(found.trimmed, expected.trimmed, "how many turns are kept no more");
    assert_eq!(records(&found.records), records(&expected.records), "the turns, byte for byte");
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { compared, appended, gone, deleted, expired, emptied, set_back, hits } = self;
        write!(
            f,
            "{compared} loads compared ({hits} from the cache), {appended} turns appended, {gone} refused as gone; \
             {deleted} sessions deleted, {expired} expired; the server emptied {emptied} and set back {set_back} times"
        )
    }
}

async fn amid_writes_a_load_lies_between_the_one_before_and_the_one_after(behind: Behind) {
    let seed = seed();
    let bare = Arc::new(behind.open(None).await);
    let mut writers = JoinSet::new();
    for (bytes, number) in SIZES.into_iter().zip(1..) {
        let replica = Cached::new(behind.open(None).await).with_max_bytes(bytes);
        writers.spawn(amid_writes(replica, Arc::clone(&bare), Random::new(seed + number)));
    }
    let mut compared = 0;
    while let Some(writer) = writers.join_next().await {
        compared += writer.unwrap();
    }
    println!("{compared} loads amid the writes of {} replicas, 0 stale", SIZES.len());
}

async fn amid_writes(replica: Cached<Opened>, bare: Arc<Opened>, mut random: Random) -> usize {
    let mut compared = 0;
    for round in 0..turns() {
        // A session that grows for ever would only make the test slow.
        let key = key(&format!("session-{}", round / 20));
        if random.one_in(2) {
            say(&replica, &key, "hello").await;
            continue;
        }
        let before = ids(&bare.load(&key, None).await.unwrap());
        let found = ids(&replica.load(&key, None).await.unwrap());
        let after = ids(&bare.load(&key, None).await.unwrap());
        assert!(found.starts_with(&before), "turns that were there are missing: {before:?}, {found:?}");
        assert!(after.starts_with(&found), "turns that were never there: {found:?}, {after:?}");
        compared += 1;
    }
    compared
}

fn ids(loaded: &Loaded) -> Vec<RecordId> {
    loaded.records.iter().map(|turn| turn.id()).collect()
}
