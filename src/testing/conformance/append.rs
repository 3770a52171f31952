use std::collections::HashSet;

use tokio::task::JoinSet;

use super::{
    Harness,
    fixture::{Fixture, after, appended, assert_same, ids, turn, turn_from},
};
use crate::{
    history::{Parent, Place, RecordId},
    store::{Appended, HistoryStore, StoreErrorKind},
};

pub(super) async fn a_turn_that_is_sent_twice_is_stored_once<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    let key = fixture.key("a");
    let start = fixture.load(&key).await.cursor;
    let (first, second) = (turn(&key, "one"), turn(&key, "two"));
    let cursor = appended(fixture.append(&key, &start, &first).await);
    assert_eq!(
        fixture.append(&key, &start, &first).await,
        Appended::AlreadyThere(cursor),
        "the same turn at the same cursor, as after a lost answer"
    );
    let end = appended(fixture.append(&key, &cursor, &second).await);
    for at in [&start, &cursor, &end] {
        assert_eq!(
            fixture.append(&key, at, &first).await,
            Appended::AlreadyThere(end),
            "the same turn again, after another one"
        );
    }
    assert_same(&fixture.load(&key).await.records, &[first, second], "each turn once, in its place");
}

pub(super) async fn the_same_turn_sent_at_once_is_stored_once<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    for round in 0..20 {
        let key = fixture.key(&format!("session-{round}"));
        let at = fixture.load(&key).await.cursor;
        let turn = turn(&key, "once");
        let mut tasks = JoinSet::new();
        for _ in 0..8 {
            let (store, key, turn) = (fixture.store.clone(), key.clone(), turn.clone());
            tasks.spawn(async move { store.append(&key, &at, &turn).await.expect("an append succeeds") });
        }
        let answers = tasks.join_all().await;
        let added = answers.iter().filter(|answer| matches!(answer, Appended::Appended { .. })).count();
        let there = answers.iter().filter(|answer| matches!(answer, Appended::AlreadyThere(_))).count();
        assert_eq!((added, there), (1, 7), "one adds the turn, the others find it");
        assert_same(&fixture.load(&key).await.records, &[turn], "the turn is stored once");
    }
}

pub(super) async fn first_turns_that_race_share_one_log<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    let key = fixture.key("a");
    let unborn = fixture.load(&key).await.cursor;
    let (first, second) = (turn(&key, "one"), turn(&key, "two"));
    appended(fixture.append(&key, &unborn, &first).await);
    appended(fixture.append(&key, &unborn, &second).await);
    assert_same(&fixture.load(&key).await.records, &[first, second], "nothing was deleted between them");
}

pub(super) async fn concurrent_turns_of_a_session_are_all_stored_in_one_order<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    let key = fixture.key("a");
    let (first, at) = fixture.say(&key, &["first"]).await;
    let mut writers = JoinSet::new();
    let mut sent: HashSet<_> = ids(&first).into_iter().collect();
    for number in 1..64 {
        let (store, key, turn) = (fixture.store.clone(), key.clone(), turn(&key, &number.to_string()));
        sent.insert(turn.id());
        writers.spawn(async move {
            let answer = store.append(&key, &at, &turn).await.expect("an append succeeds");
            let seen = store.load(&key, None).await.expect("a load succeeds");
            (turn.id(), answer, ids(&seen.records))
        });
    }
    let answers = writers.join_all().await;
    let end = fixture.load(&key).await;
    let order = ids(&end.records);
    assert_eq!(order.len(), 64, "every turn once");
    assert_eq!(order.iter().copied().collect::<HashSet<_>>(), sent, "every turn that was acknowledged");
    assert_eq!(end.cursor.count, 64, "the cursor counts them");
    for (id, answer, seen) in answers {
        let cursor = appended(answer);
        let place = cursor.count as usize;
        if let Appended::Appended { before: Some(before), .. } = answer {
            assert_eq!(order[place - 2], before, "an append names the turn before its own, or none");
        }
        assert_eq!(order[place - 1], id, "the cursor of an append names the turn's place");
        assert_eq!(cursor.newest, Some(id), "the cursor of an append stands at its turn");
        assert_eq!(seen, order[..seen.len()], "every load is a beginning of the one order");
        assert!(seen.contains(&id), "a load sees the turn that was acknowledged before it");
    }
}

pub(super) async fn a_branch_and_a_new_root_keep_their_parents<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    let key = fixture.key("a");
    let (mut turns, cursor) = fixture.say(&key, &["one", "two"]).await;
    for parent in [after(&turns[0]), Parent::Root, after(&turns[1])] {
        let turn = turn_from(&key, "elsewhere", parent);
        appended(fixture.append(&key, &cursor, &turn).await);
        turns.push(turn);
    }
    let loaded = fixture.load(&key).await.records;
    assert_same(&loaded, &turns, "branches are appended like other turns");
    let parents: Vec<Parent> = loaded.iter().map(|turn| turn.parent()).collect();
    let expected: Vec<Parent> = turns.iter().map(|turn| turn.parent()).collect();
    assert_eq!(parents, expected, "a turn that branched keeps its parent");
}

pub(super) async fn a_turn_whose_parent_is_not_in_the_log_is_gone<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    let (key, other) = (fixture.key("a"), fixture.key("b"));
    let nowhere = turn_from(&key, "nowhere", Parent::At(Place { turn: RecordId::new(), items: 1 }));
    let unborn = fixture.load(&key).await.cursor;
    let answer = fixture.append(&key, &unborn, &nowhere).await;
    assert_eq!(answer, Appended::Gone, "a session that has not begun holds no parent");

    let (turns, cursor) = fixture.say(&key, &["one"]).await;
    let (others, _) = fixture.say(&other, &["one"]).await;
    let elsewhere = turn_from(&key, "elsewhere", after(&others[0]));
    for orphan in [nowhere, elsewhere] {
        let answer = fixture.append(&key, &cursor, &orphan).await;
        assert_eq!(answer, Appended::Gone, "the parent is not in this log");
    }
    let loaded = fixture.load(&key).await;
    assert_same(&loaded.records, &turns, "a turn that is gone leaves nothing");
    assert_eq!(loaded.cursor, cursor, "a turn that is gone leaves nothing");
}

pub(super) async fn a_turn_of_another_session_is_refused<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    let (key, other) = (fixture.key("a"), fixture.key("b"));
    let (turns, cursor) = fixture.say(&key, &["one"]).await;
    let error = fixture.store.append(&key, &cursor, &turn(&other, "astray")).await.err();
    let kind = error.map(|error| error.kind());
    assert_eq!(kind, Some(StoreErrorKind::Corrupt), "a turn is for the session it was made for");
    assert_same(&fixture.load(&key).await.records, &turns, "nothing was written here");
    assert!(fixture.load(&other).await.records.is_empty(), "nothing was written there");
}

pub(super) async fn the_store_names_itself_and_its_durability<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    let name = fixture.store.name();
    let token = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    assert!(!name.is_empty() && name.bytes().all(token), "{name:?} is no lower-case token");
    fixture.store.durability().await.expect("a store that works knows its durability");
}

pub(super) async fn a_store_can_be_closed_more_than_once<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    fixture.say(&fixture.key("a"), &["one"]).await;
    fixture.store.close().await;
    fixture.store.close().await;
}
