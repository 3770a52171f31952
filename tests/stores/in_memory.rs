//! The in-memory store: the conformance suite, and its bounds.

use std::{sync::Arc, time::Duration};

use tower_session_memory::{
    history::Record,
    session::SessionKey,
    store::{
        Appended, Durability, DynHistoryStore, Erased, HistoryStore, InMemoryStore, Page, Retention,
        StoreErrorKind, TtlRefresh,
    },
    testing::{
        ManualClock,
        conformance::{Harness, Options},
    },
};

use crate::turns::{self, key};

#[derive(Default)]
struct InMemory(ManualClock);

impl Harness for InMemory {
    type Store = InMemoryStore;

    async fn store(&self, options: &Options) -> InMemoryStore {
        let clock = self.0.clone();
        InMemoryStore::new().with_clock(move || clock.now()).with_retention(options.retention)
    }

    async fn pass(&self, time: Duration) {
        self.0.advance(time);
    }
}

mod conformance {
    tower_session_memory::conformance_tests!(super::InMemory::default());
}

/// The suite runs on the erased twin of the trait, too.
#[derive(Default)]
struct ErasedInMemory(InMemory);

impl Harness for ErasedInMemory {
    type Store = Arc<dyn DynHistoryStore>;

    async fn store(&self, options: &Options) -> Arc<dyn DynHistoryStore> {
        Arc::new(Arc::new(self.0.store(options).await))
    }

    async fn pass(&self, time: Duration) {
        self.0.pass(time).await;
    }
}

mod conformance_erased {
    tower_session_memory::conformance_tests!(super::ErasedInMemory::default());
}

#[tokio::test]
async fn it_says_that_it_forgets() {
    assert_eq!(InMemoryStore::new().durability().await.unwrap(), Durability::None);
}

#[tokio::test]
async fn past_the_bound_the_least_recently_appended_session_goes_whole() {
    let store = InMemoryStore::new().with_max_bytes(100_000);
    for name in ["old", "older-but-used", "new"] {
        say(&store, &key(name), 20_000).await;
    }
    say(&store, &key("older-but-used"), 20_000).await;
    store.load(&key("old"), None).await.unwrap();
    let turn = say(&store, &key("newest"), 30_000).await;

    assert_eq!(held(&store, "old").await, 0, "appended to least recently, although it was loaded since");
    assert_eq!(held(&store, "older-but-used").await, 2, "a session goes whole or not at all");
    assert_eq!(held(&store, "newest").await, 1);
    let stats = store.stats();
    assert_eq!(stats.evicted_sessions, 1, "what was dropped is counted");
    assert!(stats.bytes <= 100_000, "{} bytes are held", stats.bytes);

    let at = store.load(&key("old"), None).await.unwrap().cursor;
    let answer = store.append(&key("newest"), &at, &turn).await.unwrap();
    assert!(matches!(answer, Appended::AlreadyThere(_)), "what was not dropped is whole");
}

#[tokio::test]
async fn an_append_tells_the_turn_before_it() {
    let store = InMemoryStore::new();
    let key = key("a");
    let start = store.load(&key, None).await.unwrap().cursor;
    let mut before_it = None;
    for _ in 0..3 {
        let turn = turn(&key, 10);
        let answer = store.append(&key, &start, &turn).await.unwrap();
        assert!(matches!(answer, Appended::Appended { before, .. } if before == before_it), "{answer:?}");
        before_it = Some(turn.id());
    }
}

#[tokio::test]
async fn a_session_that_was_dropped_starts_anew_like_one_that_expired() {
    let store = InMemoryStore::new().with_max_bytes(50_000);
    say(&store, &key("a"), 20_000).await;
    let at = store.load(&key("a"), None).await.unwrap().cursor;
    say(&store, &key("b"), 40_000).await;
    let answer = store.append(&key("a"), &at, &turn(&key("a"), 1000)).await.unwrap();
    assert!(matches!(answer, Appended::Appended { cursor, .. } if cursor.count == 1), "{answer:?}");
}

#[tokio::test]
async fn expired_sessions_go_before_live_ones() {
    let clock = ManualClock::default();
    let now = clock.clone();
    let store = InMemoryStore::new()
        .with_clock(move || now.now())
        .with_max_bytes(100_000)
        .with_retention(Retention::new().with_ttl(Duration::from_secs(60)).with_refresh(TtlRefresh::OnLoad));
    say(&store, &key("live"), 40_000).await;
    clock.advance(Duration::from_secs(40));
    say(&store, &key("expired"), 40_000).await;
    clock.advance(Duration::from_secs(15));
    store.load(&key("live"), None).await.unwrap();
    clock.advance(Duration::from_secs(50));
    say(&store, &key("new"), 50_000).await;
    assert_eq!(held(&store, "live").await, 1, "appended to least recently, but it has not expired");
    assert_eq!(store.stats().evicted_sessions, 0, "only what expired had to go");
}

#[tokio::test]
async fn a_session_that_fills_the_store_alone_loses_its_oldest_turns() {
    let store = InMemoryStore::new().with_max_bytes(100_000);
    for _ in 0..10 {
        say(&store, &key("a"), 20_000).await;
    }
    let loaded = store.load(&key("a"), None).await.unwrap();
    assert_eq!(loaded.records.len(), 4, "as many of the newest as there is room for");
    assert_eq!(loaded.cursor.count, 10, "the cursor counts them all");
    let stats = store.stats();
    assert_eq!(stats.evicted_turns, 6);
    assert!(stats.bytes <= 100_000, "{} bytes are held", stats.bytes);
}

#[tokio::test]
async fn a_turn_is_known_again_however_long_its_session_is_and_after_it_was_trimmed() {
    for store in [
        InMemoryStore::new(),
        InMemoryStore::new().with_retention(Retention::new().with_max_turns(std::num::NonZeroUsize::new(3))),
    ] {
        let mut said = Vec::new();
        for _ in 0..40 {
            said.push(say(&store, &key("a"), 10).await);
            let at = store.load(&key("a"), None).await.unwrap().cursor;
            for turn in &said {
                let again = store.append(&key("a"), &at, turn).await.unwrap();
                assert_eq!(again, Appended::AlreadyThere(at), "one of {} turns", said.len());
            }
        }
    }
}

#[tokio::test]
async fn a_record_larger_than_the_store_is_refused_and_nothing_is_dropped_for_it() {
    let store = InMemoryStore::new().with_max_bytes(100_000);
    say(&store, &key("a"), 20_000).await;
    let at = store.load(&key("b"), None).await.unwrap().cursor;
    let error = store.append(&key("b"), &at, &turn(&key("b"), 100_000)).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::TooLarge);
    assert_eq!(held(&store, "a").await, 1);
}

#[tokio::test]
async fn deletions_do_not_fill_the_store() {
    let clock = ManualClock::default();
    let now = clock.clone();
    let store = InMemoryStore::new().with_clock(move || now.now()).with_max_bytes(1_000_000);
    for number in 0..10_000 {
        store.delete(&key(&format!("session-{number}"))).await.unwrap();
    }
    assert!(store.stats().bytes <= 1_000_000, "{} bytes are held", store.stats().bytes);
    clock.advance(Duration::from_secs(25 * 60 * 60));
    for _ in 0..1000 {
        say(&store, &key("a"), 10).await;
    }
    assert_eq!(store.stats().sessions, 1, "what a deletion leaves expires by itself");
}

#[tokio::test]
async fn nothing_follows_the_last_place_that_an_expiry_could_name() {
    let store = InMemoryStore::new();
    say(&store, &key("a"), 10).await;
    let page = Page::new(1).with_after(u64::MAX.to_string());
    assert_eq!(store.expire("test", Duration::ZERO, &page).await.unwrap(), Erased::default());
}

#[test]
fn nothing_of_a_conversation_is_in_its_debug_text() {
    let store = InMemoryStore::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(say(&store, &key("a-secret-id"), 100));
    let text = format!("{store:?}");
    assert!(!text.contains("a-secret-id") && !text.contains("xxx"), "{text}");
}

fn turn(key: &SessionKey, bytes: usize) -> Record {
    turns::turn(key, &"x".repeat(bytes))
}

async fn say(store: &InMemoryStore, key: &SessionKey, bytes: usize) -> Record {
    let turn = turn(key, bytes);
    turns::add(store, key, &turn).await;
    turn
}

async fn held(store: &InMemoryStore, id: &str) -> usize {
    store.load(&key(id), None).await.unwrap().records.len()
}
