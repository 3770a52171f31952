//! The cache: never stale, bounded, and worth its memory.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
};

use proptest::{collection::vec, option, prelude::*, sample::Index};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tower_session_memory::{
    history::{Parent, Place, Record},
    session::SessionKey,
    store::{
        Appended, Cached, Compressed, Cursor, HistoryStore, InMemoryStore, LoadOptions, Loaded, StoreError,
        StoreErrorKind,
    },
};

use super::support::{Shelf, key, records, say, turn, turn_from};

/// One thing that happens. Replicas and sessions are taken modulo how many there are.
#[derive(Debug, Clone)]
enum Step {
    /// Loads through a replica, after a cursor that was seen before or from the start.
    Load {
        replica: usize,
        session: usize,
        after: Option<Index>,
    },
    /// Appends through a replica at a cursor that was seen before.
    Append {
        replica: usize,
        session: usize,
        at: Index,
        branch: bool,
        bytes: usize,
    },
    Delete {
        replica: usize,
        session: usize,
    },
    /// Deletes behind the back of every replica.
    DeleteElsewhere {
        session: usize,
    },
    Expire {
        session: usize,
    },
    /// The server goes back to an earlier state and goes on from there, in the same epoch.
    Lose {
        session: usize,
        turns: usize,
    },
}

const REPLICAS: usize = 3;
const SESSIONS: usize = 3;

fn step() -> impl Strategy<Value = Step> {
    let (replica, session) = (0..REPLICAS, 0..SESSIONS);
    let both = (replica, session.clone());
    prop_oneof![
        8 => (both.clone(), option::weighted(0.3, any::<Index>()))
            .prop_map(|((replica, session), after)| Step::Load { replica, session, after }),
        8 => (both.clone(), any::<Index>(), any::<bool>(), prop_oneof![0..50_usize, 1_000..4_000_usize])
            .prop_map(|((replica, session), at, branch, bytes)| Step::Append { replica, session, at, branch, bytes }),
        1 => both.prop_map(|(replica, session)| Step::Delete { replica, session }),
        1 => session.clone().prop_map(|session| Step::DeleteElsewhere { session }),
        1 => session.clone().prop_map(|session| Step::Expire { session }),
        2 => (session, 1..4_usize).prop_map(|(session, turns)| Step::Lose { session, turns }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_happens_a_replica_answers_what_the_store_would(
        steps in vec(step(), 1..120),
        max_turns in option::of(1..6_usize),
        max_bytes in prop_oneof![Just(0_u64), 2_000..20_000_u64, Just(1 << 30)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(run(&steps, Shelf::keeping(max_turns), max_bytes));
    }
}

async fn run(steps: &[Step], store: Shelf, max_bytes: u64) {
    let keys: Vec<SessionKey> = (0..SESSIONS).map(|id| key(&format!("session-{id}"))).collect();
    let replicas: Vec<_> =
        (0..REPLICAS).map(|_| Cached::new(store.clone()).with_max_bytes(max_bytes)).collect();
    let mut seen = vec![Vec::<Cursor>::new(); SESSIONS];
    for (key, seen) in keys.iter().zip(&mut seen) {
        seen.push(store.load(key, None).await.unwrap().cursor);
    }
    for step in steps {
        match *step {
            Step::Load { replica, session, after } => {
                let after = after.map(|index| *index.get(&seen[session]));
                let found = replicas[replica].load(&keys[session], after.as_ref()).await.unwrap();
                let expected = store.load(&keys[session], after.as_ref()).await.unwrap();
                same(&found, &expected);
                seen[session].push(found.cursor);
            }
            Step::Append { replica, session, at, branch, bytes } => {
                let (key, at) = (&keys[session], at.get(&seen[session]));
                let parent = at
                    .newest
                    .filter(|_| branch)
                    .map_or(Parent::Previous, |turn| Parent::At(Place { turn, items: 2 }));
                let turn = turn_from(key, &"x".repeat(bytes), parent);
                if let Appended::Appended { cursor, .. } =
                    replicas[replica].append(key, at, &turn).await.unwrap()
                {
                    seen[session].push(cursor);
                }
            }
            Step::Delete { replica, session } => replicas[replica].delete(&keys[session]).await.unwrap(),
            Step::DeleteElsewhere { session } => store.delete(&keys[session]).await.unwrap(),
            Step::Expire { session } => store.expire(&keys[session]),
            Step::Lose { session, turns } => store.lose(&keys[session], turns),
        }
        for replica in &replicas {
            assert!(replica.stats().bytes <= max_bytes, "{:?}", replica.stats());
        }
    }
    for replica in &replicas {
        for key in &keys {
            let expected = store.load(key, None).await.unwrap();
            same(&replica.load(key, None).await.unwrap(), &expected);
        }
    }
}

#[track_caller]
fn same(found: &Loaded, expected: &Loaded) {
    assert_eq!(found.cursor, expected.cursor, "where the log ends");
    assert_eq!(found.from_start, expected.from_start, "whether the cursor is known");
    assert_eq!(found.trimmed, expected.trimmed, "how many turns are kept no more");
    assert_eq!(records(&found.records), records(&expected.records), "the turns, byte for byte");
}

#[tokio::test]
async fn a_load_costs_one_call_and_the_turns_that_are_new_however_long_the_session_is() {
    let store = Shelf::default();
    let replica = Cached::new(store.clone());
    let key = key("a");
    for round in 0..300 {
        say(&replica, &key, "hello").await;
        let (loads, moved) = store.traffic();
        assert_eq!(loads, 1, "round {round}: one round trip");
        assert_eq!(
            moved,
            u64::from(round == 1),
            "round {round}: all but a session's first turn were kept at once"
        );
    }
    replica.load(&key, None).await.unwrap();
    store.traffic();
    for _ in 0..10 {
        assert_eq!(replica.load(&key, None).await.unwrap().records.len(), 300);
    }
    assert_eq!(store.traffic(), (10, 0), "nothing is new, so nothing is moved");
}

#[tokio::test]
async fn replicas_that_take_turns_move_each_turn_once_to_each() {
    let store = Shelf::default();
    let replicas = [Cached::new(store.clone()), Cached::new(store.clone()), Cached::new(store.clone())];
    let key = key("a");
    for round in 0..300 {
        say(&replicas[round % 3], &key, "hello").await;
    }
    for replica in &replicas {
        assert_eq!(replica.load(&key, None).await.unwrap().records.len(), 300);
    }
    let (loads, moved) = store.traffic();
    let read_back = 1 + 2 * 300;
    assert_eq!(
        (loads, moved),
        (303, read_back),
        "a call for each load; each turn once for each of the others, and the session's first for all"
    );
}

#[tokio::test]
async fn a_turn_that_was_appended_behind_another_than_the_kept_one_is_loaded_with_it() {
    let store = Shelf::default();
    let replica = Cached::new(store.clone());
    let key = key("a");
    say(&store, &key, "one").await;
    say(&store, &key, "two").await;
    let at = replica.load(&key, None).await.unwrap().cursor;
    say(&store, &key, "elsewhere").await;
    replica.append(&key, &at, &turn(&key, "behind it")).await.unwrap();
    store.traffic();
    let loaded = replica.load(&key, None).await.unwrap();
    assert_eq!(store.traffic(), (1, 2), "that one and the one before it");
    same(&loaded, &store.load(&key, None).await.unwrap());

    // The server loses the newest turn, and takes another one: the cursor counts as many as before.
    let at = replica.load(&key, None).await.unwrap().cursor;
    store.lose(&key, 1);
    say(&store, &key, "in its place").await;
    let Appended::Appended { cursor, .. } =
        replica.append(&key, &at, &turn(&key, "behind that")).await.unwrap()
    else {
        panic!()
    };
    assert_eq!(cursor.count, at.count + 1, "as if nothing had been lost");
    same(&replica.load(&key, None).await.unwrap(), &store.load(&key, None).await.unwrap());
}

#[tokio::test]
async fn a_turn_is_not_kept_at_once_while_the_log_is_looked_at() {
    let store = Shelf::default();
    let replica = Cached::new(store.clone());
    let key = key("a");
    say(&store, &key, "one").await;
    let seen = replica.load(&key, None).await.unwrap();
    say(&replica, &key, "two").await;
    assert_eq!(seen.records.len(), 1, "what was seen does not change");
    drop(seen);
    store.traffic();
    let loaded = replica.load(&key, None).await.unwrap();
    assert_eq!(store.traffic(), (1, 1), "it comes with the next load");
    same(&loaded, &store.load(&key, None).await.unwrap());
}

#[tokio::test]
async fn what_a_server_lost_is_kept_no_more_after_one_load() {
    let store = Shelf::default();
    let replica = Cached::new(store.clone());
    let key = key("a");
    for lost in 1..4 {
        for _ in 0..5 {
            say(&replica, &key, "hello").await;
        }
        store.lose(&key, lost);
        replica.load(&key, None).await.unwrap();
        store.traffic();
        replica.load(&key, None).await.unwrap();
        assert_eq!(store.traffic(), (1, 0), "{lost} turns were lost");
        say(&replica, &key, "and on").await;
        store.traffic();
        replica.load(&key, None).await.unwrap();
        assert_eq!(store.traffic(), (1, 0), "what is said next is kept at once");
    }
}

#[tokio::test]
async fn a_packed_turn_is_answered_as_the_store_unpacks_it() {
    let plain = Shelf::default();
    let packed = Compressed::new(plain.clone()).with_min_bytes(1);
    let key = key("a");
    say(&packed, &key, &"one ".repeat(1_000)).await;
    say(&packed, &key, &"two ".repeat(1_000)).await;
    let envelopes: Vec<Record> = plain.load(&key, None).await.unwrap().records.to_vec();
    assert!(envelopes.iter().all(|turn| turn.envelope().is_some()));
    // As they are, to another place that unpacks what it reads.
    let elsewhere = Cached::new(Compressed::new(Shelf::default()));
    for turn in &envelopes {
        let at = elsewhere.load(&key, None).await.unwrap().cursor;
        elsewhere.append(&key, &at, turn).await.unwrap();
    }
    let (found, expected) =
        (elsewhere.load(&key, None).await.unwrap(), packed.load(&key, None).await.unwrap());
    assert_eq!(records(&found.records), records(&expected.records));
}

#[tokio::test]
async fn what_is_appended_to_is_in_use() {
    let replica = Cached::new(Shelf::default()).with_max_bytes(100_000);
    for id in ["a", "b", "c"] {
        say(&replica, &key(id), "hello").await;
        replica.load(&key(id), None).await.unwrap();
    }
    let at = replica.load(&key("a"), None).await.unwrap().cursor;
    for id in ["b", "c"] {
        say(&replica, &key(id), &"x".repeat(35_000)).await;
    }
    replica.append(&key("a"), &at, &turn(&key("a"), &"x".repeat(35_000))).await.unwrap();
    assert_eq!((replica.stats().sessions, replica.stats().evicted), (2, 1));
    let hits = replica.stats().hits;
    for id in ["a", "c"] {
        replica.load(&key(id), None).await.unwrap();
    }
    assert_eq!(replica.stats().hits, hits + 2, "the one that went is not the one that was just appended to");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn loads_and_appends_of_one_session_at_once_answer_beginnings_of_the_stores_log() {
    let store = InMemoryStore::new();
    let replica = Arc::new(Cached::new(store.clone()));
    let key = key("a");
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let (replica, key) = (Arc::clone(&replica), key.clone());
        tasks.spawn(async move {
            let mut seen = Vec::new();
            for _ in 0..50 {
                let loaded = replica.load(&key, None).await.unwrap();
                seen.push(loaded.records.iter().map(|turn| turn.id()).collect::<Vec<_>>());
                let (at, turn) = (loaded.cursor, turn(&key, "hello"));
                drop(loaded);
                replica.append(&key, &at, &turn).await.unwrap();
                tokio::task::yield_now().await;
            }
            seen
        });
    }
    let seen = tasks.join_all().await;
    let whole = store.load(&key, None).await.unwrap();
    let order: Vec<_> = whole.records.iter().map(|turn| turn.id()).collect();
    assert_eq!(order.len(), 400);
    for ids in seen.into_iter().flatten() {
        assert_eq!(ids, order[..ids.len()]);
    }
    same(&replica.load(&key, None).await.unwrap(), &whole);
}

#[tokio::test]
async fn a_log_that_its_own_turn_makes_too_large_is_not_kept() {
    let replica = Cached::new(Shelf::default()).with_max_bytes(100_000);
    for id in ["a", "b"] {
        say(&replica, &key(id), "hello").await;
        replica.load(&key(id), None).await.unwrap();
    }
    assert_eq!(replica.stats().sessions, 2);
    say(&replica, &key("a"), &"x".repeat(60_000)).await;
    let kept = replica.stats();
    assert!((60_000..100_000).contains(&kept.bytes), "what was appended is kept, and weighed: {kept:?}");
    say(&replica, &key("a"), &"x".repeat(60_000)).await;
    let left = replica.stats();
    assert_eq!((left.sessions, left.evicted), (1, 0), "the other one stays");
    assert!(left.bytes < 50_000, "{left:?}");
}

#[tokio::test]
async fn logs_that_were_not_used_for_longest_make_room_and_one_larger_than_all_is_not_kept() {
    let replica = Cached::new(Shelf::default()).with_max_bytes(100_000);
    for id in ["a", "b", "c"] {
        say(&replica, &key(id), &"x".repeat(25_000)).await;
        replica.load(&key(id), None).await.unwrap();
    }
    assert_eq!(replica.stats().sessions, 3);
    replica.load(&key("a"), None).await.unwrap();
    say(&replica, &key("d"), &"x".repeat(25_000)).await;
    replica.load(&key("d"), None).await.unwrap();
    let before = replica.stats();
    assert_eq!((before.sessions, before.evicted), (3, 1));
    assert!(before.bytes > 75_000 && before.bytes <= 100_000, "{before:?}");
    replica.load(&key("a"), None).await.unwrap();
    assert_eq!(replica.stats().hits, before.hits + 1, "what was used lately is kept");
    replica.load(&key("b"), None).await.unwrap();
    assert_eq!(replica.stats().misses, before.misses + 1, "what was not used for longest went");

    say(&replica, &key("huge"), &"x".repeat(100_000)).await;
    let kept = replica.stats();
    replica.load(&key("huge"), None).await.unwrap();
    let after = replica.stats();
    assert_eq!((after.sessions, after.evicted), (kept.sessions, kept.evicted), "nothing goes for it in vain");
}

#[tokio::test]
async fn what_is_deleted_or_expires_leaves_the_memory() {
    let store = Shelf::default();
    let replica = Cached::new(store.clone());
    for end in ["here", "elsewhere", "expired", "gone"] {
        let key = key(end);
        say(&replica, &key, "hello").await;
        let at = replica.load(&key, None).await.unwrap().cursor;
        assert_eq!(replica.stats().sessions, 1, "{end}");
        match end {
            "here" => replica.delete(&key).await.unwrap(),
            "elsewhere" => {
                store.delete(&key).await.unwrap();
                replica.load(&key, None).await.unwrap();
            }
            "expired" => {
                store.expire(&key);
                replica.load(&key, None).await.unwrap();
            }
            _ => {
                store.delete(&key).await.unwrap();
                let answer = replica.append(&key, &at, &turn(&key, "late")).await.unwrap();
                assert_eq!(answer, Appended::Gone);
            }
        }
        let stats = replica.stats();
        assert_eq!((stats.sessions, stats.bytes), (0, 0), "{end}");
    }
}

/// A store whose answers to loads are held back until a test lets them go, one by one.
#[derive(Clone)]
struct Held {
    inner: Shelf,
    answered: mpsc::Sender<Arc<Semaphore>>,
}

impl HistoryStore for Held {
    async fn load(
        &self,
        key: &SessionKey,
        options: impl Into<LoadOptions> + Send,
    ) -> Result<Loaded, StoreError> {
        let loaded = self.inner.load(key, options).await;
        let gate = Arc::new(Semaphore::new(0));
        self.answered.try_send(gate.clone()).unwrap();
        gate.acquire().await.unwrap().forget();
        loaded
    }

    async fn append(&self, key: &SessionKey, at: &Cursor, turn: &Record) -> Result<Appended, StoreError> {
        self.inner.append(key, at, turn).await
    }

    fn name(&self) -> &'static str {
        "held"
    }

    tower_session_memory::delegate_history_store!(
        |this| this.inner;
        read, delete, sessions, principals, delete_principal, expire, durability, close
    );
}

type Load<'a> = Pin<Box<dyn Future<Output = Result<Loaded, StoreError>> + 'a>>;

/// Polls once, so that the store answers, and the answer is held back.
async fn begin(load: &mut Load<'_>) {
    poll_fn(|context| {
        assert!(load.as_mut().poll(context).is_pending(), "the answer is held back");
        Poll::Ready(())
    })
    .await;
}

#[tokio::test]
async fn loads_that_overtake_each_other_each_answer_their_moment_and_spoil_nothing() {
    let store = Shelf::default();
    let (answered, mut answers) = mpsc::channel(8);
    let replica = Cached::new(Held { inner: store.clone(), answered });
    let key = key("a");
    for known in [false, true] {
        let mut loads = VecDeque::new();
        let mut lengths = VecDeque::new();
        for _ in 0..4 {
            say(&store, &key, "hello").await;
            lengths.push_back(store.log(&key).records.len());
            let mut load: Load<'_> = Box::pin(replica.load(&key, None));
            begin(&mut load).await;
            loads.push_back((load, answers.recv().await.unwrap()));
        }
        // The newest answer arrives first.
        for _ in 0..4 {
            let ((load, gate), length) = (loads.pop_back().unwrap(), lengths.pop_back().unwrap());
            gate.add_permits(1);
            assert_eq!(load.await.unwrap().records.len(), length, "known = {known}");
        }
        let mut load: Load<'_> = Box::pin(replica.load(&key, None));
        store.traffic();
        begin(&mut load).await;
        assert_eq!(store.traffic(), (1, 0), "the newest log is the one that was kept");
        answers.recv().await.unwrap().add_permits(1);
        let expected = store.load(&key, None).await.unwrap();
        same(&load.await.unwrap(), &expected);
    }
}

#[tokio::test]
async fn a_load_that_a_deletion_overtook_keeps_nothing() {
    let store = Shelf::default();
    let (answered, mut answers) = mpsc::channel(8);
    let replica = Cached::new(Held { inner: store.clone(), answered });
    let key = key("a");
    say(&store, &key, "hello").await;
    let mut load: Load<'_> = Box::pin(replica.load(&key, None));
    begin(&mut load).await;
    replica.delete(&key).await.unwrap();
    answers.recv().await.unwrap().add_permits(1);
    load.await.unwrap();
    let stats = replica.stats();
    assert_eq!((stats.sessions, stats.bytes), (0, 0), "what was deleted here is not kept here");
}

/// A store that answers loads with something else than it found.
struct Altered(Shelf, fn(Option<&Cursor>, &mut Loaded));

impl HistoryStore for Altered {
    async fn load(
        &self,
        key: &SessionKey,
        options: impl Into<LoadOptions> + Send,
    ) -> Result<Loaded, StoreError> {
        let after = options.into().after;
        let mut loaded = self.0.load(key, after.as_ref()).await?;
        (self.1)(after.as_ref(), &mut loaded);
        Ok(loaded)
    }

    async fn append(&self, key: &SessionKey, at: &Cursor, turn: &Record) -> Result<Appended, StoreError> {
        self.0.append(key, at, turn).await
    }

    fn name(&self) -> &'static str {
        "altered"
    }

    tower_session_memory::delegate_history_store!(
        |this| this.0;
        read, delete, sessions, principals, delete_principal, expire, durability, close
    );
}

#[tokio::test]
async fn an_answer_that_does_not_continue_the_kept_log_is_replaced_by_the_whole_one() {
    let store = Shelf::default();
    let replica = Cached::new(Altered(store.clone(), |after, loaded| {
        if after.is_some() {
            loaded.records.to_mut().clear();
        }
    }));
    let key = key("a");
    for _ in 0..5 {
        say(&store, &key, "hello").await;
        let expected = store.load(&key, None).await.unwrap();
        same(&replica.load(&key, None).await.unwrap(), &expected);
    }
}

#[tokio::test]
async fn a_log_that_is_not_what_its_cursor_says_is_an_error_and_not_kept() {
    let store = Shelf::default();
    let key = key("a");
    say(&store, &key, "one").await;
    say(&store, &key, "two").await;
    let wrong: [fn(Option<&Cursor>, &mut Loaded); 4] = [
        |_, loaded| drop(loaded.records.to_mut().remove(0)),
        |_, loaded| loaded.records.to_mut().swap(0, 1),
        |_, loaded| loaded.cursor.count += 1,
        |_, loaded| loaded.trimmed = 5,
    ];
    for alter in wrong {
        let replica = Cached::new(Altered(store.clone(), alter));
        let error = replica.load(&key, None).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Corrupt);
        assert_eq!(replica.stats().sessions, 0);
    }
}

#[tokio::test]
async fn a_log_weighs_the_same_however_it_came_to_be_known() {
    for max_turns in [None, Some(1), Some(3)] {
        let shelf = Shelf::keeping(max_turns);
        let (grown, elsewhere) = (Cached::new(shelf.clone()), Cached::new(shelf.clone()));
        for length in [1, 300, 20, 5000, 7, 90] {
            say(&elsewhere, &key("a"), &"x".repeat(length)).await;
            // Every other time it finds two new turns, and some of what it knows is trimmed.
            if length % 2 == 0 {
                grown.load(&key("a"), None).await.unwrap();
            }
        }
        let fresh = Cached::new(shelf);
        fresh.load(&key("a"), None).await.unwrap();
        grown.load(&key("a"), None).await.unwrap();
        assert_eq!(grown.stats().bytes, fresh.stats().bytes, "{max_turns:?}");
    }
}
