use super::{
    Harness,
    fixture::{Fixture, appended, assert_same, turn},
};
use crate::{
    history::RecordId,
    store::{Cursor, Epoch},
};

pub(super) async fn an_unknown_session_is_empty<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    let key = fixture.key("a");
    let loaded = fixture.load(&key).await;
    assert!(loaded.records.is_empty(), "an unknown session has no turns");
    assert!(loaded.from_start, "a load without a cursor is from the start");
    assert_eq!(loaded.cursor.count, 0, "an unknown session has no turns");
    assert_eq!(loaded.cursor.newest, None, "an unknown session has no newest turn");
    assert_eq!(loaded.trimmed, 0, "nothing of an unknown session was trimmed");
    appended(fixture.append(&key, &loaded.cursor, &turn(&key, "first")).await);
}

pub(super) async fn turns_come_back_in_the_order_of_their_commits<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    let key = fixture.key("a");
    let (turns, cursor) = fixture.say(&key, &["one", "two", "three", "four"]).await;
    let loaded = fixture.load(&key).await;
    assert_same(&loaded.records, &turns, "all turns, in the order of their commits");
    assert!(loaded.from_start, "a load without a cursor is from the start");
    assert_eq!(loaded.cursor, cursor, "a load ends where the last append ended");
    assert_eq!(cursor.count, 4, "a cursor counts the turns");
    assert_eq!(loaded.trimmed, 0, "every turn is kept");
    assert_eq!(cursor.newest, Some(turns[3].id()), "a cursor names the newest turn");
}

pub(super) async fn an_acknowledged_turn_is_in_every_later_load<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    let key = fixture.key("a");
    let mut cursor = fixture.load(&key).await.cursor;
    for round in 0..50 {
        let turn = turn(&key, &round.to_string());
        cursor = appended(fixture.append(&key, &cursor, &turn).await);
        let newest = fixture.load(&key).await.records.last().cloned();
        assert_eq!(newest.map(|turn| turn.id()), Some(turn.id()), "round {round}: the load came later");
    }
}

pub(super) async fn a_load_after_a_cursor_holds_only_what_came_after_it<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    let key = fixture.key("a");
    let (_, second) = fixture.say(&key, &["one", "two"]).await;
    let nothing = fixture.load_after(&key, Some(&second)).await;
    assert!(nothing.records.is_empty(), "nothing came after the newest turn");
    assert!(!nothing.from_start, "the cursor is of this log");
    assert_eq!(nothing.cursor, second, "nothing moved");

    let (after, last) = fixture.say(&key, &["three", "four"]).await;
    let loaded = fixture.load_after(&key, Some(&second)).await;
    assert_same(&loaded.records, &after, "only the turns after the cursor");
    assert!(!loaded.from_start, "the cursor is of this log");
    assert_eq!(loaded.cursor, last, "the cursor stands at the end of the log");
}

pub(super) async fn a_cursor_that_says_nothing_here_starts_over<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    let (key, other) = (fixture.key("a"), fixture.key("b"));
    let unborn = fixture.load(&key).await.cursor;
    let (turns, cursor) = fixture.say(&key, &["one", "two", "three"]).await;
    let (_, foreign) = fixture.say(&other, &["one", "two", "three"]).await;
    let unknown = [
        ("a session that had not begun", unborn),
        ("another session", foreign),
        ("another epoch", Cursor { epoch: Epoch::from_bytes([7; 16]), ..cursor }),
        ("a turn that is not here", Cursor { newest: Some(RecordId::new()), ..cursor }),
        ("a turn at another place", Cursor { count: 2, ..cursor }),
        ("a place past the end", Cursor { count: 4, ..cursor }),
        ("a place past every end", Cursor { count: u64::MAX, ..cursor }),
        ("a place that names no turn", Cursor { newest: None, ..cursor }),
    ];
    for (what, after) in unknown {
        let loaded = fixture.load_after(&key, Some(&after)).await;
        assert!(loaded.from_start, "the cursor of {what} says nothing here");
        assert_same(&loaded.records, &turns, what);
        assert_eq!(loaded.cursor, cursor, "the log ends where it ends: {what}");
    }
}
