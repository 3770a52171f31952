use tokio::task::JoinSet;

use super::{
    Harness,
    fixture::{Fixture, after, appended, assert_same, turn, turn_from},
};
use crate::{
    history::Parent,
    store::{Appended, HistoryStore},
};

pub(super) async fn a_deleted_session_is_empty_and_takes_new_turns<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    let key = fixture.key("a");
    let (_, old) = fixture.say(&key, &["one", "two"]).await;
    fixture.delete(&key).await;
    let empty = fixture.load_after(&key, Some(&old)).await;
    assert!(empty.records.is_empty() && empty.from_start, "nothing is left, and the old cursor says nothing");
    assert_eq!((empty.cursor.count, empty.cursor.newest), (0, None), "nothing is left to count");
    assert_ne!(empty.cursor.epoch, old.epoch, "a deletion ends the epoch");

    let first = turn(&key, "anew");
    let cursor = appended(fixture.append(&key, &empty.cursor, &first).await);
    let loaded = fixture.load(&key).await;
    assert_same(&loaded.records, &[first], "only what came after the deletion");
    assert_eq!(loaded.cursor, cursor, "the new log begins to count at one");
    assert_eq!(cursor.count, 1, "the new log begins to count at one");
    let (_, next) = fixture.say(&key, &["more"]).await;
    assert_eq!(next.epoch, cursor.epoch, "the new log has one epoch");
}

pub(super) async fn deleting_what_is_not_there_is_fine<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    let key = fixture.key("a");
    fixture.delete(&key).await;
    fixture.delete(&key).await;
    let (turns, _) = fixture.say(&key, &["one"]).await;
    assert_same(&fixture.load(&key).await.records, &turns, "the session can begin afterwards");
}

pub(super) async fn a_turn_in_flight_does_not_resurrect_its_session<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    let key = fixture.key("a");
    let (turns, cursor) = fixture.say(&key, &["one"]).await;
    let in_flight = [
        turn(&key, "two"),
        turn_from(&key, "two", Parent::Root),
        turn_from(&key, "two", after(&turns[0])),
        turns[0].clone(),
    ];
    fixture.delete(&key).await;
    for turn in &in_flight {
        let answer = fixture.append(&key, &cursor, turn).await;
        assert_eq!(answer, Appended::Gone, "its session was deleted since it was loaded");
    }
    assert!(fixture.load(&key).await.records.is_empty(), "deleted stays deleted");
}

pub(super) async fn a_first_turn_in_flight_does_not_resurrect_its_session<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    let key = fixture.key("a");
    let unborn = fixture.load(&key).await.cursor;
    fixture.delete(&key).await;
    let answer = fixture.append(&key, &unborn, &turn(&key, "one")).await;
    assert_eq!(answer, Appended::Gone, "the session was deleted before its first turn landed");
    assert!(fixture.load(&key).await.records.is_empty(), "deleted stays deleted");
}

pub(super) async fn a_turn_in_flight_does_not_join_the_session_that_came_after<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    let key = fixture.key("a");
    let unborn = fixture.load(&key).await.cursor;
    let (_, old) = fixture.say(&key, &["one"]).await;
    fixture.delete(&key).await;
    let between = fixture.load(&key).await.cursor;
    fixture.delete(&key).await;
    let (turns, _) = fixture.say(&key, &["anew"]).await;
    for (what, at) in [("no session", unborn), ("the first log", old), ("the first deletion", between)] {
        let answer = fixture.append(&key, &at, &turn(&key, "late")).await;
        assert_eq!(answer, Appended::Gone, "the turn was built on {what}, which was deleted");
    }
    assert_same(&fixture.load(&key).await.records, &turns, "the new session is its own");
}

pub(super) async fn a_deletion_amid_appends_leaves_nothing_of_what_was_before<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    for round in 0..20 {
        let key = fixture.key(&format!("session-{round}"));
        let (_, at) = fixture.say(&key, &["one"]).await;
        let mut appends = JoinSet::new();
        for number in 0..8 {
            let (store, key, turn) = (fixture.store.clone(), key.clone(), turn(&key, &number.to_string()));
            appends.spawn(async move { store.append(&key, &at, &turn).await.expect("an append succeeds") });
        }
        fixture.delete(&key).await;
        let loaded = fixture.load(&key).await;
        assert!(loaded.records.is_empty(), "round {round}: all of them were built on what was deleted");
        appends.join_all().await;
        let loaded = fixture.load(&key).await;
        assert!(loaded.records.is_empty(), "round {round}: none of them landed after the deletion");
    }
}
