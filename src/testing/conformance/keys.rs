use super::{
    Harness,
    fixture::{Fixture, assert_same, turn},
};
use crate::{
    session::{Principal, SessionKey},
    store::Appended,
};

pub(super) async fn keys_that_look_alike_are_different_sessions<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    let long = "x".repeat(128);
    let principals = [
        "", "a", "A", "a ", " a", "a:b", "a:1", "1:a", "a\0", "a\0b", "ä", "a\u{308}", "a%", "a*", "{a}",
        "a'", "a\"", "a\\", "a/../b", "a\r\nb", "💬",
    ];
    let ids =
        ["a", "A", "b:a", "1:a", "a:b", "%61", "a%", "*", "a_", "{a}", "'", "a\\", "..", "0", "00", &long];
    let mut keys = Vec::new();
    for (suffix, principal) in ["", ":", ":1"].iter().flat_map(|s| principals.iter().map(move |p| (s, p))) {
        for id in &ids {
            let namespace = format!("{}{suffix}", fixture.namespace);
            let id = id.parse().expect("the checks use valid ids");
            keys.push(SessionKey::new(namespace, Principal::new(*principal), id));
        }
    }
    let mut turns = Vec::new();
    for (number, key) in keys.iter().enumerate() {
        turns.push(fixture.say(key, &[&number.to_string()]).await.0);
    }
    for (number, (key, turns)) in keys.iter().zip(&turns).enumerate() {
        assert_same(
            &fixture.load(key).await.records,
            turns,
            &format!("key {number} is a session of its own"),
        );
    }
}

pub(super) async fn another_principal_cannot_reach_a_session<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    let (mine, theirs) = (fixture.key_of("me", "a"), fixture.key_of("them", "a"));
    let (turns, cursor) = fixture.say(&mine, &["one"]).await;
    for after in [None, Some(&cursor)] {
        let loaded = fixture.load_after(&theirs, after).await;
        assert!(loaded.records.is_empty(), "the same id under another principal is another session");
    }
    let answer = fixture.append(&theirs, &cursor, &turn(&theirs, "theirs")).await;
    assert!(matches!(answer, Appended::Appended { .. }), "it begins a session of its own");
    fixture.delete(&theirs).await;
    let loaded = fixture.load(&mine).await;
    assert_same(&loaded.records, &turns, "nothing that another principal did is seen here");
    assert_eq!(loaded.cursor, cursor, "nothing that another principal did is seen here");
}
