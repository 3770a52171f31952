//! Faults of a store, and other writers, while a session is written.

#![allow(clippy::unwrap_used)]

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tower_session_memory::{
    history::Record,
    session::SessionKey,
    store::{Appended, Cursor, HistoryStore, InMemoryStore, LoadOptions, Loaded, StoreError, StoreErrorKind},
};

use super::{super::tests, Patience, write};
use crate::commands::import::report::{Count, Skipped};

const PATIENCE: Patience = Patience { attempt: Duration::from_secs(60), retry: Duration::from_secs(60) };

/// Event at the second append.
#[derive(Clone, Copy, PartialEq)]
enum Event {
    Deleted,
    Used,
    Unreachable,
    AnswerLost,
    Broken,
}

struct Eventful {
    store: InMemoryStore,
    event: Event,
    appends: AtomicUsize,
}

impl HistoryStore for Eventful {
    async fn load(
        &self,
        key: &SessionKey,
        options: impl Into<LoadOptions> + Send,
    ) -> Result<Loaded, StoreError> {
        self.store.load(key, options).await
    }

    async fn append(&self, key: &SessionKey, at: &Cursor, turn: &Record) -> Result<Appended, StoreError> {
        if self.appends.fetch_add(1, Ordering::Relaxed) == 1 {
            match self.event {
                Event::Deleted => self.store.delete(key).await?,
                Event::Used => drop(self.store.append(key, at, &turns(9)[8]).await?),
                Event::Unreachable => return Err(StoreError::new(StoreErrorKind::Unavailable)),
                Event::AnswerLost => {
                    self.store.append(key, at, turn).await?;
                    return Err(StoreError::new(StoreErrorKind::Timeout));
                }
                Event::Broken => return Err(StoreError::new(StoreErrorKind::Corrupt)),
            }
        }
        self.store.append(key, at, turn).await
    }

    fn name(&self) -> &'static str {
        "eventful"
    }

    tower_session_memory::delegate_history_store!(
        |this| this.store;
        read, delete, sessions, principals, delete_principal, expire, durability, close
    );
}

/// `count` turns of two messages each.
fn turns(count: usize) -> Vec<Record> {
    let said =
        (0..count).flat_map(|n| [tests::lc("human", format!("q{n}")), tests::lc("ai", format!("a{n}"))]);
    tests::turns("langchain", &said.collect::<Vec<_>>()).turns
}

async fn after(event: Event) -> (Result<super::Outcome, StoreError>, Vec<Record>) {
    let store = Eventful { store: InMemoryStore::new(), event, appends: AtomicUsize::new(0) };
    let outcome = write(&store, &tests::key(), &turns(4), false, PATIENCE).await;
    (outcome, store.load(&tests::key(), None).await.unwrap().records.into())
}

fn ids(turns: &[Record]) -> Vec<String> {
    turns.iter().map(|turn| turn.id().to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_for_now_is_asked_again_and_holds_each_turn_once() {
    for event in [Event::Unreachable, Event::AnswerLost] {
        let (outcome, stored) = after(event).await;
        let outcome = outcome.unwrap();
        assert!(outcome.skipped.is_none());
        assert_eq!(outcome.imported.turns + outcome.present.turns, 4);
        assert_eq!(ids(&stored), ids(&turns(4)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_for_good_ends_the_import() {
    let (outcome, stored) = after(Event::Broken).await;
    assert_eq!(outcome.unwrap_err().kind(), StoreErrorKind::Corrupt);
    assert_eq!(ids(&stored), ids(&turns(1)), "what was stored stays");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_deleted_meanwhile_stays_deleted() {
    let (outcome, stored) = after(Event::Deleted).await;
    assert!(matches!(outcome.unwrap().skipped, Some(Skipped::Deleted)));
    assert!(stored.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_used_meanwhile_gets_no_more_turns() {
    let (outcome, stored) = after(Event::Used).await;
    let outcome = outcome.unwrap();
    assert!(matches!(outcome.skipped, Some(Skipped::Busy { missing: 2 })));
    assert_eq!(outcome.imported, Count { turns: 2, messages: 4 });
    assert_eq!(stored.len(), 3, "one turn was under way");
}
