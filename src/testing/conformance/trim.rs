use std::num::NonZeroUsize;

use super::{
    Harness, Options,
    fixture::{Fixture, after, assert_same, turn_from},
};
use crate::store::{Appended, HistoryStore, Page};

async fn trimming<H: Harness>(harness: &H) -> Fixture<H::Store> {
    Fixture::with(harness, Options { max_turns: NonZeroUsize::new(3), ..Options::default() }).await
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

    let page = Page { limit: 10, after: None };
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
