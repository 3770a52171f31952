use std::num::NonZeroUsize;

use super::{
    Harness,
    fixture::{Fixture, after, appended, assert_same, continuing, turn, turn_from},
};
use crate::store::{Appended, HistoryStore, Page, Retention};

async fn trimming<H: Harness>(harness: &H) -> Fixture<H::Store> {
    Fixture::with(harness, Retention::new().with_max_turns(NonZeroUsize::new(3))).await
}

pub(super) async fn only_the_newest_turns_are_kept<H: Harness>(harness: &H) {
    let fixture = trimming(harness).await;
    let key = fixture.key("a");
    let (mut turns, second) = fixture.say(&key, &["one", "two"]).await;
    let (more, fourth) = fixture.say(&key, &["three", "four"]).await;
    turns.extend(more);
    let (more, last) = fixture.say(&key, &["five"]).await;
    turns.extend(more);

    let loaded = fixture.load(&key).await;
    assert_same(&loaded.records, &turns[2..], "the newest three");
    assert_eq!(loaded.cursor, last, "the cursor stands at the end");
    assert_eq!(last.count, 5, "the cursor counts trimmed turns too");
    assert_eq!(loaded.trimmed, 2, "a load tells how many turns are kept no more");

    let kept = fixture.load_after(&key, Some(&fourth)).await;
    assert_same(&kept.records, &turns[4..], "a cursor at a turn that is kept works as ever");
    assert!(!kept.from_start, "a cursor at a turn that is kept works as ever");
    assert_eq!(kept.trimmed, 2, "also a load of the newest turns tells it");
    let behind = fixture.load_after(&key, Some(&second)).await;
    let caught_up = if behind.from_start { &turns[2..] } else { &turns[2..5] };
    assert_same(&behind.records, caught_up, "a cursor at a trimmed turn misses nothing that is kept");

    let branch = turn_from(&key, "branch", after(&turns[0]));
    let answer = fixture.append(&key, &last, &branch).await;
    assert_eq!(answer, Appended::Gone, "a trimmed turn is in the log no more");

    let page = Page::new(10);
    let listed = fixture.store.sessions(&fixture.scope("somebody"), &page).await.expect("a listing succeeds");
    assert_eq!(listed.sessions[0].turns, 3, "a listing tells how many turns there are");
}

pub(super) async fn a_turn_that_was_trimmed_is_not_stored_again<H: Harness>(harness: &H) {
    let fixture = trimming(harness).await;
    let key = fixture.key("a");
    let (turns, last) = fixture.say(&key, &["one", "two", "three", "four", "five"]).await;
    let answer = fixture.append(&key, &last, &turns[0]).await;
    assert_eq!(answer, Appended::AlreadyThere(last), "a late retry is stored once");
    assert_same(&fixture.load(&key).await.records, &turns[2..], "nothing changed");
}

/// The smallest turn of these checks has fewer bytes, and whatever a store counts for it.
const A_FEW_TURNS: u64 = 16 * 1024;

async fn bounded<H: Harness>(harness: &H) -> Fixture<H::Store> {
    Fixture::with(harness, Retention::new().with_max_bytes(A_FEW_TURNS)).await
}

/// Text that no wrapper makes smaller.
fn noise(bytes: usize, seed: u64) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..bytes.div_ceil(16)).map(|_| format!("{:016x}", next())).collect()
}

pub(super) async fn a_log_past_its_bytes_loses_its_oldest_turns<H: Harness>(harness: &H) {
    let fixture = bounded(harness).await;
    let key = fixture.key("a");
    let mut at = fixture.load(&key).await.cursor;
    let mut turns = Vec::new();
    for number in 0..40 {
        let turn = turn(&key, &noise(1000, number));
        at = appended(fixture.append(&key, &at, &turn).await);
        turns.push(turn);
        let loaded = fixture.load(&key).await;
        let kept = loaded.records.len();
        assert!(kept >= 1, "the newest turn stays");
        assert_same(&loaded.records, &turns[turns.len() - kept..], "the oldest go first");
        assert_eq!(loaded.cursor, at, "the cursor stands at the end");
        assert_eq!(loaded.trimmed, (turns.len() - kept) as u64, "a load names the number of those that went");
        // As they are stored, which a wrapper decides.
        let scope = fixture.scope("somebody");
        let page = fixture.store.sessions(&scope, &Page::new(1)).await.expect("a listing succeeds");
        let bytes = page.sessions[0].bytes;
        assert!(bytes <= A_FEW_TURNS, "what does not fit goes: {bytes}");
        assert!(loaded.trimmed == 0 || bytes > A_FEW_TURNS / 2, "what fits is kept: {bytes}");
    }
    assert!(fixture.load(&key).await.trimmed > 0, "what is old went");
    let late = fixture.append(&key, &at, &turns[0]).await;
    assert_eq!(late, Appended::AlreadyThere(at), "a late retry of what went is stored once");
}

pub(super) async fn a_turn_that_is_larger_than_the_bound_is_kept_alone<H: Harness>(harness: &H) {
    let fixture = bounded(harness).await;
    let key = fixture.key("a");
    fixture.say(&key, &["one", "two"]).await;
    let (large, _) = fixture.say(&key, &[&noise(100_000, 1)]).await;
    assert_same(&fixture.load(&key).await.records, &large, "the newest turn is never dropped");
    let (next, _) = fixture.say(&key, &["three"]).await;
    assert_same(&fixture.load(&key).await.records, &next, "the next one takes its place");
}

pub(super) async fn half_a_tool_exchange_is_never_kept<H: Harness>(harness: &H) {
    let by_turns = Retention::new().with_max_turns(NonZeroUsize::new(4));
    let by_bytes = Retention::new().with_max_bytes(A_FEW_TURNS);
    for (retention, largest) in [(by_turns, 10), (by_bytes, 1000)] {
        let fixture = Fixture::with(harness, retention).await;
        let key = fixture.key("a");
        let mut at = fixture.load(&key).await.cursor;
        let (mut turns, mut newest_exchange) = (Vec::new(), 0);
        // Exchanges of 1, 2, … turns, the last ones larger than what is kept by itself.
        for (length, number) in (1..10).flat_map(|length| (0..length).map(move |number| (length, number))) {
            let text = noise(largest, length * 100 + number);
            let next = if number == 0 { turn(&key, &text) } else { continuing(&key, &text) };
            if number == 0 {
                newest_exchange = turns.len();
            }
            at = appended(fixture.append(&key, &at, &next).await);
            turns.push(next);
            let loaded = fixture.load(&key).await;
            let from = turns.len() - loaded.records.len();
            assert_same(&loaded.records, &turns[from..], "the oldest go first");
            assert!(
                !loaded.records[0].continues_exchange(),
                "a log begins with no result of a call that went"
            );
            assert!(from <= newest_exchange, "the newest exchange stays whole");
        }
        assert!(fixture.load(&key).await.trimmed > 0, "what is old went");
    }
}
