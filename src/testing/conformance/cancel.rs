use std::{
    collections::HashSet,
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
};

use tokio::task::JoinSet;

use super::{
    Harness,
    fixture::{Fixture, ids, turn},
};
use crate::{
    history::RecordId,
    session::SessionKey,
    store::{Appended, HistoryStore, Page},
};

const TASKS: u64 = 8;
const CALLS: u64 = 250;

pub(super) async fn calls_that_are_dropped_disturb_no_other<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let key = fixture.key_of(&format!("principal-{task}"), &format!("session-{task}"));
        tasks.spawn(disturb(fixture.store.clone(), key, Dice(task + 1)));
    }
    let dropped: u64 = tasks.join_all().await.into_iter().sum();
    assert!(dropped > TASKS * CALLS / 10, "only {dropped} calls were dropped: the check checks nothing");
}

/// Makes calls on a session of its own, drops many of them on the way, and checks the answers of the others.
/// Returns how many were dropped.
async fn disturb<S: HistoryStore + 'static>(store: Arc<S>, key: SessionKey, mut dice: Dice) -> u64 {
    let scope =
        crate::store::Scope { namespace: key.namespace().to_owned(), principal: key.principal().clone() };
    let page = Page::new(10);
    let mut cursor = store.load(&key, None).await.expect("a load succeeds").cursor;
    let (mut sent, mut acknowledged, mut seen) = (HashSet::new(), HashSet::new(), Vec::new());
    let mut dropped = 0;
    for call in 0..CALLS {
        let polls = dice.roll(4);
        match dice.roll(4) {
            0 => dropped += u64::from(cut(polls, store.load(&key, Some(&cursor))).await.is_none()),
            1 => dropped += u64::from(cut(polls, store.sessions(&scope, &page)).await.is_none()),
            _ => {
                let turn = turn(&key, &call.to_string());
                sent.insert(turn.id());
                match cut(polls, store.append(&key, &cursor, &turn)).await {
                    None => dropped += 1,
                    Some(answer) => {
                        cursor = acknowledge(answer.expect("an append succeeds"), turn.id());
                        acknowledged.insert(turn.id());
                    }
                }
            }
        }
        if dice.roll(16) == 0 {
            let loaded = store.load(&key, None).await.expect("a load succeeds");
            check(&ids(&loaded.records), &seen, &sent, &acknowledged);
            cursor = loaded.cursor;
            seen = ids(&loaded.records);
        }
    }
    let loaded = store.load(&key, None).await.expect("a load succeeds");
    check(&ids(&loaded.records), &seen, &sent, &acknowledged);
    let listed = store.sessions(&scope, &page).await.expect("a listing succeeds");
    assert!(listed.sessions.iter().all(|session| &session.id == key.id()), "a listing of another principal");
    dropped
}

#[track_caller]
fn acknowledge(answer: Appended, id: RecordId) -> crate::store::Cursor {
    match answer {
        Appended::Appended { cursor, .. } => {
            assert_eq!(cursor.newest, Some(id), "the answer to another call");
            cursor
        }
        other => {
            panic!("{other:?} for a turn that was never sent before, of a session that was never deleted")
        }
    }
}

#[track_caller]
fn check(found: &[RecordId], seen: &[RecordId], sent: &HashSet<RecordId>, acknowledged: &HashSet<RecordId>) {
    assert!(found.starts_with(seen), "a log only grows");
    let all: HashSet<RecordId> = found.iter().copied().collect();
    assert_eq!(all.len(), found.len(), "a turn stands in the log twice");
    assert!(all.is_subset(sent), "a turn that was never sent");
    assert!(all.is_superset(acknowledged), "an acknowledged turn is missing");
}

/// Polls a future at most `polls` times, then drops it. Each poll but the last is followed by a wake-up.
pub(super) async fn cut<F: Future>(polls: u64, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

/// Random enough, and the same every time.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % sides
    }
}
