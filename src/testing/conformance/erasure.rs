//! The erasure of a principal and of what is old.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use super::{
    Harness,
    cancel::{Dice, cut},
    expiry::{Late, in_time},
    fixture::{Fixture, after, appended, assert_same, ids, turn},
    principals::listed,
};
use crate::{
    history::Record,
    session::SessionKey,
    store::{Appended, Cursor, Erased, HistoryStore, Page, Scope},
};

/// Far more than any of these erasures takes.
const STEPS: usize = 10_000;

/// Takes all steps of the erasure of a principal; their sum.
async fn erase<S: HistoryStore + 'static>(fixture: &Fixture<S>, scope: &Scope, limit: usize) -> Erased {
    let (mut all, mut after) = (Erased::default(), None);
    for _ in 0..STEPS {
        let page = Page::new(limit).with_after(after);
        let step = fixture.store.delete_principal(scope, &page).await.expect("an erasure succeeds");
        after = sum(&mut all, step, limit);
        if after.is_none() {
            return all;
        }
    }
    panic!("an erasure ends");
}

/// Takes all steps of an expiry by age; their sum.
async fn expire<S: HistoryStore + 'static>(fixture: &Fixture<S>, age: Duration, limit: usize) -> Erased {
    let (mut all, mut after) = (Erased::default(), None);
    for _ in 0..STEPS {
        let page = Page::new(limit).with_after(after);
        let step = fixture.store.expire(&fixture.namespace, age, &page).await.expect("an expiry succeeds");
        after = sum(&mut all, step, limit);
        if after.is_none() {
            return all;
        }
    }
    panic!("an expiry ends");
}

/// Adds a step, and checks its bound.
#[track_caller]
fn sum(all: &mut Erased, step: Erased, limit: usize) -> Option<String> {
    assert!(
        step.sessions <= limit.min(Erased::MAX_SESSIONS) as u64,
        "a step erased {} sessions",
        step.sessions
    );
    all.sessions += step.sessions;
    all.records += step.records;
    all.bytes += step.bytes;
    step.next
}

/// The bytes that a listing says a principal's sessions have.
async fn listed_bytes<S: HistoryStore + 'static>(fixture: &Fixture<S>, scope: &Scope) -> u64 {
    let page = fixture.store.sessions(scope, &Page::new(1000)).await.expect("a listing succeeds");
    page.sessions.iter().map(|session| session.bytes).sum()
}

/// Sessions of this number of a principal, with one to three turns each; the number of turns.
async fn fill<S: HistoryStore + 'static>(fixture: &Fixture<S>, principal: &str, sessions: usize) -> u64 {
    let mut turns = 0;
    for number in 0..sessions {
        let texts = vec!["hi"; number % 3 + 1];
        fixture.say(&fixture.key_of(principal, &format!("session-{number}")), &texts).await;
        turns += texts.len() as u64;
    }
    turns
}

pub(super) async fn a_principal_is_erased_whole_and_no_other<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    let scope = fixture.scope("mine");
    let none = erase(&fixture, &scope, 1000).await;
    assert_eq!(none, Erased::default(), "there is nothing to erase");
    let turns = fill(&fixture, "mine", 10).await;
    let elsewhere = Fixture { store: fixture.store.clone(), namespace: format!("{}:", fixture.namespace) };
    let others = [fixture.key_of("mine*", "a"), fixture.key_of("min", "a"), elsewhere.key_of("mine", "a")];
    let mut theirs = Vec::new();
    for key in &others {
        theirs.push(fixture.say(key, &["theirs"]).await.0);
    }
    let bytes = listed_bytes(&fixture, &scope).await;
    let erased = erase(&fixture, &scope, 1000).await;
    assert_eq!((erased.sessions, erased.records), (10, turns), "the report counts what was erased");
    assert_eq!(erased.bytes, bytes, "the report counts the bytes that were listed");
    for number in 0..10 {
        let key = fixture.key_of("mine", &format!("session-{number}"));
        assert!(fixture.load(&key).await.records.is_empty(), "session {number} is gone");
    }
    assert_eq!(listed_bytes(&fixture, &scope).await, 0, "no session is listed");
    assert!(!listed(&fixture, 100).await.contains(&"mine".to_owned()), "the principal is not listed");
    for (key, turns) in others.iter().zip(&theirs) {
        assert_same(&fixture.load(key).await.records, turns, "another principal's session is untouched");
    }
    assert_eq!(erase(&fixture, &scope, 1000).await.sessions, 0, "it was erased already");
}

pub(super) async fn what_was_erased_stays_erased<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    let key = fixture.key_of("mine", "a");
    let unborn = fixture.load(&key).await.cursor;
    let (turns, cursor) = fixture.say(&key, &["one", "two"]).await;
    erase(&fixture, &fixture.scope("mine"), 10).await;
    for (at, late) in [
        (cursor, turn(&key, "late")),
        (unborn, turn(&key, "late")),
        (cursor, super::fixture::turn_from(&key, "late", after(&turns[1]))),
        (cursor, turns[0].clone()),
    ] {
        let answer = fixture.append(&key, &at, &late).await;
        assert_eq!(answer, Appended::Gone, "a turn in flight does not bring its session back");
    }
    let empty = fixture.load_after(&key, Some(&cursor)).await;
    assert!(empty.records.is_empty() && empty.from_start, "nothing is left");
    let first = turn(&key, "anew");
    appended(fixture.append(&key, &empty.cursor, &first).await);
    assert_same(&fixture.load(&key).await.records, &[first], "the session may begin anew");
}

pub(super) async fn an_erasure_goes_in_bounded_steps<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    for (principal, sessions, limit) in [("a", 150, 1000), ("b", 20, 7), ("c", 5, 1)] {
        let turns = fill(&fixture, principal, sessions).await;
        let erased = erase(&fixture, &fixture.scope(principal), limit).await;
        assert_eq!((erased.sessions, erased.records), (sessions as u64, turns), "in steps of {limit}");
        assert_eq!(listed_bytes(&fixture, &fixture.scope(principal)).await, 0, "nothing is left");
    }
}

pub(super) async fn an_erasure_begun_anew_at_each_step_ends_as_well<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    let scope = fixture.scope("mine");
    let turns = fill(&fixture, "mine", 30).await;
    let mut all = Erased::default();
    for _ in 0..STEPS {
        let step = fixture.store.delete_principal(&scope, &Page::new(8)).await.expect("an erasure succeeds");
        let (found, next) = (step.sessions, sum(&mut all, step, 8));
        // Where names are gone through, a step may find none and not be at the end.
        if found == 0 {
            let rest = Page::new(8).with_after(next);
            sum(&mut all, fixture.store.delete_principal(&scope, &rest).await.expect("it goes on"), 8);
        }
        if all.sessions == 30 {
            break;
        }
    }
    assert_eq!((all.sessions, all.records), (30, turns), "no step is remembered, and none needs to be");
}

/// Sessions that take turns while others are erased, until this is dropped or checked; their turns in order.
struct Beside(Stop, JoinSet<(SessionKey, Vec<Record>)>);

/// Ends the sessions also where the check fails.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Beside {
    async fn start<S: HistoryStore + 'static>(fixture: &Fixture<S>, principal: &str) -> Self {
        let (stop, mut tasks) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
        for number in 0..4 {
            let key = fixture.key_of(principal, &format!("beside-{number}"));
            let (mut turns, mut at) = fixture.say(&key, &["before"]).await;
            let (store, stop) = (fixture.store.clone(), stop.clone());
            tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) || turns.len() < 10 {
                    let next = turn(&key, &turns.len().to_string());
                    at = appended(store.append(&key, &at, &next).await.expect("an append succeeds"));
                    turns.push(next);
                    let loaded = store.load(&key, None).await.expect("a load succeeds");
                    assert_eq!(ids(&loaded.records), ids(&turns), "it is whole all the while");
                    tokio::task::yield_now().await;
                }
                (key, turns)
            });
        }
        Self(Stop(stop), tasks)
    }

    async fn check<S: HistoryStore + 'static>(self, fixture: &Fixture<S>) {
        let Self(stop, tasks) = self;
        drop(stop);
        for (key, turns) in tasks.join_all().await {
            assert_same(&fixture.load(&key).await.records, &turns, "nothing of it was erased");
        }
    }
}

/// Takes steps and drops many of them on the way, until all of it is erased.
async fn with_drops<F>(mut step: impl FnMut(Page) -> F)
where
    F: Future<Output = Erased>,
{
    let (mut dice, mut after, mut dropped) = (Dice(7), None, 0);
    for _ in 0..STEPS {
        let polls = if dropped < 20 { dice.roll(6) } else { u64::MAX };
        match cut(polls, step(Page::new(5).with_after(after.clone()))).await {
            None => {
                dropped += 1;
                // Whether it is gone on with or begun anew is the same.
                after = after.filter(|_| dice.roll(2) == 0);
            }
            Some(erased) if erased.next.is_none() && dropped >= 20 => return,
            Some(erased) => after = erased.next,
        }
    }
    panic!("an erasure ends");
}

pub(super) async fn an_erasure_that_is_dropped_on_the_way_harms_no_other_session<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    let scope = fixture.scope("mine");
    fill(&fixture, "mine", 60).await;
    let cursors = cursors(&fixture, "mine", 60).await;
    let beside = Beside::start(&fixture, "theirs").await;
    with_drops(|page| {
        let (store, scope) = (fixture.store.clone(), scope.clone());
        async move { store.delete_principal(&scope, &page).await.expect("an erasure succeeds") }
    })
    .await;
    for (key, at) in cursors {
        assert!(fixture.load(&key).await.records.is_empty(), "all of it is gone");
        let late = fixture.append(&key, &at, &turn(&key, "late")).await;
        assert_eq!(late, Appended::Gone, "and stays so");
    }
    beside.check(&fixture).await;
}

async fn cursors<S: HistoryStore + 'static>(
    fixture: &Fixture<S>,
    principal: &str,
    sessions: usize,
) -> Vec<(SessionKey, Cursor)> {
    let mut cursors = Vec::new();
    for number in 0..sessions {
        let key = fixture.key_of(principal, &format!("session-{number}"));
        let cursor = fixture.load(&key).await.cursor;
        cursors.push((key, cursor));
    }
    cursors
}

/// Between what is old and what is young, for a store that goes by real time on a slow machine.
const AGE: Duration = Duration::from_secs(2);
const MORE_THAN_IT: Duration = Duration::from_secs(3);

/// Says nothing if the machine took the time after which what is young is old.
fn is_young(since: Instant) -> Result<(), Late> {
    if since.elapsed() < AGE { Ok(()) } else { Err(Late) }
}

pub(super) async fn old_sessions_are_erased_and_young_ones_stay<H: Harness>(harness: &H) {
    in_time(async || {
        let fixture = Fixture::new(harness).await;
        let elsewhere =
            Fixture { store: fixture.store.clone(), namespace: format!("{}:", fixture.namespace) };
        let turns = fill(&fixture, "a", 5).await + fill(&fixture, "b", 5).await;
        let (old, _) = elsewhere.say(&elsewhere.key("a"), &["old"]).await;
        let (renewed, gone) = (fixture.key_of("c", "renewed"), fixture.key_of("c", "gone"));
        fixture.say(&renewed, &["old"]).await;
        fixture.say(&gone, &["old"]).await;
        fixture.delete(&gone).await;
        harness.pass(MORE_THAN_IT).await;
        let since = Instant::now();
        fixture.say(&renewed, &["young"]).await;
        let (young, _) = fixture.say(&fixture.key_of("a", "young"), &["young"]).await;
        let bytes = listed_bytes(&fixture, &fixture.scope("b")).await;
        harness.pass(Duration::from_millis(100)).await;
        let erased = expire(&fixture, AGE, 1000).await;
        is_young(since)?;
        assert_eq!((erased.sessions, erased.records), (10, turns), "the report counts what was erased");
        assert!(erased.bytes > bytes, "and its bytes");
        assert_eq!(
            fixture.load(&renewed).await.records.len(),
            2,
            "the newest turn counts, and all of it stays"
        );
        let loaded = fixture.load(&fixture.key_of("a", "young")).await.records;
        assert_same(&loaded, &young, "what is young stays");
        assert_eq!(listed_bytes(&fixture, &fixture.scope("b")).await, 0, "what is old is not listed");
        assert_eq!(listed(&fixture, 100).await, ["a", "c"], "nor is a principal of old sessions alone");
        let loaded = elsewhere.load(&elsewhere.key("a")).await.records;
        assert_same(&loaded, &old, "another namespace is untouched");
        Ok(())
    })
    .await;
}

pub(super) async fn a_session_that_was_erased_by_age_starts_a_new_log<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    let key = fixture.key("a");
    let (turns, old) = fixture.say(&key, &["one", "two"]).await;
    harness.pass(MORE_THAN_IT).await;
    assert_eq!(expire(&fixture, AGE, 10).await.sessions, 1);
    let branch = super::fixture::turn_from(&key, "late", after(&turns[1]));
    let answer = fixture.append(&key, &old, &branch).await;
    assert_eq!(answer, Appended::Gone, "without its parent the turn is no whole conversation");
    let late = turn(&key, "three");
    let cursor = appended(fixture.append(&key, &old, &late).await);
    assert_eq!(cursor.count, 1, "a turn in flight begins a new log, as after an expiry");
    assert_ne!(cursor.epoch, old.epoch, "the new log has its own epoch");
    assert_same(&fixture.load(&key).await.records, &[late], "only the new log's turn");
}

pub(super) async fn an_expiry_by_age_goes_in_bounded_steps<H: Harness>(harness: &H) {
    for (sessions, limit) in [(100, 1000), (20, 7)] {
        let fixture = Fixture::new(harness).await;
        let turns = fill(&fixture, "a", sessions).await;
        harness.pass(MORE_THAN_IT).await;
        let erased = expire(&fixture, AGE, limit).await;
        assert_eq!((erased.sessions, erased.records), (sessions as u64, turns), "in steps of {limit}");
        assert_eq!(expire(&fixture, AGE, limit).await, Erased::default(), "nothing is left");
    }
}

pub(super) async fn an_expiry_that_is_dropped_on_the_way_harms_no_young_session<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    fill(&fixture, "old", 60).await;
    harness.pass(MORE_THAN_IT).await;
    // Of the same namespace: each of its turns makes it young again.
    let beside = Beside::start(&fixture, "young").await;
    let day = Duration::from_secs(24 * 60 * 60);
    let none =
        fixture.store.expire(&fixture.namespace, day, &Page::new(10)).await.expect("an expiry succeeds");
    assert_eq!(none.sessions, 0, "nothing is a day old");
    with_drops(|page| {
        let (store, namespace) = (fixture.store.clone(), fixture.namespace.clone());
        async move { store.expire(&namespace, AGE, &page).await.expect("an expiry succeeds") }
    })
    .await;
    for number in 0..60 {
        let key = fixture.key_of("old", &format!("session-{number}"));
        assert!(fixture.load(&key).await.records.is_empty(), "all that is old is gone");
    }
    beside.check(&fixture).await;
}

pub(super) async fn a_step_that_no_step_named_is_an_error<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    fixture.say(&fixture.key("a"), &["hi"]).await;
    for after in ["", "no such page", "\0", "';--", "-"] {
        let page = Page::new(10).with_after(after.to_owned());
        let erased = fixture.store.delete_principal(&fixture.scope("somebody"), &page).await;
        assert!(erased.is_err_and(|error| !error.is_transient()), "{after:?} names no step, now or later");
        let expired = fixture.store.expire(&fixture.namespace, Duration::ZERO, &page).await;
        assert!(expired.is_err_and(|error| !error.is_transient()), "{after:?} names no step, now or later");
    }
    assert_eq!(fixture.load(&fixture.key("a")).await.records.len(), 1, "nothing was erased");
}
