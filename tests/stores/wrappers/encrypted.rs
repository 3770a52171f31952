//! Encryption: what is stored tells nothing, and nothing that was changed, moved or put back is read.

use std::{error::Error, path::Path};

use bytes::Bytes;
use tower_session_memory::{
    history::Record,
    session::SessionKey,
    store::{
        Appended, Cached, Compressed, Cursor, Encrypted, HistoryStore, SqliteStore, StoreError,
        StoreErrorKind,
        encrypted::{InvalidKeyRing, KeyRing},
    },
};

use super::{
    inside::{InRedis, Inside, flips, on_every_store},
    support::{NEW_KEY, OLD_KEY, Shelf, after, key, records, ring, say, turn, turn_from},
};

on_every_store! {
    every_byte_of_a_stored_record_counts
    a_record_of_another_session_is_refused_also_when_it_claims_to_be_of_this_one
    whatever_is_done_to_the_order_of_a_conversation_is_noticed
    a_turn_that_comes_after_a_cursor_is_checked_against_it
    a_turn_of_a_deleted_session_does_not_come_back_into_the_next
    a_key_that_is_not_there_is_named
    keys_are_rotated_without_a_session_noticing
    a_plain_record_is_refused_unless_that_is_asked_for
    the_same_turn_is_never_sealed_to_the_same_bytes
}

fn encrypted<I: Inside>(inside: &I) -> Encrypted<I::Store> {
    Encrypted::new(inside.store(), ring(&[OLD_KEY]))
}

async fn refusal(store: &impl HistoryStore, key: &SessionKey) -> (StoreErrorKind, String) {
    let error = store.load(key, None).await.map(|loaded| loaded.records).unwrap_err();
    (error.kind(), text(&error))
}

/// An error and its causes.
fn text(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

async fn every_byte_of_a_stored_record_counts<I: Inside>() {
    let inside = I::new().await;
    let store = encrypted(&inside);
    say(&store, &key("a"), "canary").await;
    let stored = inside.records(&key("a")).await[0].clone();
    let mut refused = 0;
    for at in 0..stored.len() {
        for flip in flips::<I>(at) {
            let mut damaged = stored.to_vec();
            damaged[at] ^= flip;
            inside.put(&key("a"), &[damaged.into()]).await;
            let (_, text) = refusal(&store, &key("a")).await;
            assert!(!text.contains("canary"), "{text}");
            refused += 1;
        }
    }
    for end in 0..stored.len() {
        inside.put(&key("a"), &[stored.slice(..end)]).await;
        refusal(&store, &key("a")).await;
        refused += 1;
    }
    println!("{refused} damaged records of {} bytes were refused", stored.len());
    inside.put(&key("a"), &[[&stored[..], b"x"].concat().into()]).await;
    refusal(&store, &key("a")).await;
    inside.put(&key("a"), &[stored]).await;
    assert_eq!(store.load(&key("a"), None).await.unwrap().records.len(), 1, "undamaged it is read");
}

async fn a_record_of_another_session_is_refused_also_when_it_claims_to_be_of_this_one<I: Inside>() {
    let inside = I::new().await;
    let store = encrypted(&inside);
    say(&store, &key("a"), "canary").await;
    say(&store, &key("b"), "canary").await;
    let stolen = inside.records(&key("a")).await[0].clone();
    inside.put(&key("b"), std::slice::from_ref(&stolen)).await;
    assert_eq!(refusal(&store, &key("b")).await.0, StoreErrorKind::Corrupt);

    let hex = |id| key(id).digest().to_hex().into_bytes();
    let at = stolen.windows(32).position(|bytes| bytes == hex("a")).unwrap();
    let claims = [&stolen[..at], &hex("b"), &stolen[at + 32..]].concat();
    inside.put(&key("b"), &[claims.into()]).await;
    let (kind, text) = refusal(&store, &key("b")).await;
    assert_eq!(kind, StoreErrorKind::Corrupt);
    assert!(text.contains("does not open with the key old"), "{text}");
}

async fn whatever_is_done_to_the_order_of_a_conversation_is_noticed<I: Inside>() {
    let inside = I::new().await;
    let store = encrypted(&inside);
    for round in 0..6 {
        say(&store, &key("a"), &round.to_string()).await;
    }
    let genuine = inside.records(&key("a")).await;
    let mut refused = 0;
    let mut refuses = async |what: &str, records: Vec<Bytes>| {
        inside.put(&key("a"), &records).await;
        let (kind, text) = refusal(&store, &key("a")).await;
        assert_eq!(kind, StoreErrorKind::Corrupt, "{what}");
        assert!(text.contains("order"), "{what}: {text}");
        refused += 1;
    };
    for one in 0..6 {
        for two in one + 1..6 {
            let mut swapped = genuine.clone();
            swapped.swap(one, two);
            refuses(&format!("{one} and {two} swapped"), swapped).await;
        }
        for to in 0..=6 {
            let mut doubled = genuine.clone();
            doubled.insert(to, genuine[one].clone());
            refuses(&format!("{one} again before {to}"), doubled).await;
        }
    }
    // Without the newest two, which leave no trace when they go.
    for one in 0..4 {
        let mut shortened = genuine.clone();
        shortened.remove(one);
        refuses(&format!("without {one}"), shortened).await;
    }
    println!("{refused} wrong orders were refused");
    inside.put(&key("a"), &genuine).await;
    assert_eq!(store.load(&key("a"), None).await.unwrap().records.len(), 6, "the right order is read");
}

async fn a_turn_that_comes_after_a_cursor_is_checked_against_it<I: Inside>() {
    let inside = I::new().await;
    let store = encrypted(&inside);
    let mut cursors = Vec::new();
    for round in 0..4 {
        say(&store, &key("a"), &round.to_string()).await;
        cursors.push(store.load(&key("a"), None).await.unwrap().cursor);
    }
    for cursor in &cursors {
        store.load(&key("a"), Some(cursor)).await.unwrap();
    }
    let mut records = inside.records(&key("a")).await;
    records.swap(2, 3);
    inside.put(&key("a"), &records).await;
    let error = store.load(&key("a"), Some(&cursors[1])).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    records[2] = records[1].clone();
    inside.put(&key("a"), &records).await;
    assert!(store.load(&key("a"), Some(&cursors[1])).await.is_err(), "the turn of the cursor once more");
}

async fn a_turn_of_a_deleted_session_does_not_come_back_into_the_next<I: Inside>() {
    let inside = I::new().await;
    let store = encrypted(&inside);
    say(&store, &key("a"), "one").await;
    say(&store, &key("a"), "two").await;
    let old = inside.records(&key("a")).await;
    store.delete(&key("a")).await.unwrap();
    say(&store, &key("a"), "anew").await;
    say(&store, &key("a"), "and on").await;
    let new = inside.records(&key("a")).await;
    for place in 0..=2 {
        let mut records = new.clone();
        records.insert(place, old[1].clone());
        inside.put(&key("a"), &records).await;
        assert_eq!(refusal(&store, &key("a")).await.0, StoreErrorKind::Corrupt, "before {place}");
    }
}

#[tokio::test]
async fn what_may_happen_to_an_honest_store_is_no_reason_to_refuse_it() {
    let shelf = Shelf::keeping(Some(3));
    let store = encrypted(&shelf);
    let key = key("a");
    // First turns that race, a branch, turns built on the same one.
    let unborn = store.load(&key, None).await.unwrap().cursor;
    let first = turn(&key, "one");
    store.append(&key, &unborn, &first).await.unwrap();
    store.append(&key, &unborn, &turn(&key, "two")).await.unwrap();
    let at = store.load(&key, None).await.unwrap().cursor;
    store.append(&key, &at, &turn_from(&key, "three", after(&first))).await.unwrap();
    store.append(&key, &at, &turn(&key, "four")).await.unwrap();
    assert_eq!(store.load(&key, None).await.unwrap().trimmed, 1);
    for round in 0..5 {
        say(&store, &key, &round.to_string()).await;
    }
    let at = store.load(&key, None).await.unwrap().cursor;

    // It expires while a turn is in flight, which begins the new log.
    shelf.expire(&key);
    store.append(&key, &at, &turn(&key, "in flight")).await.unwrap();
    say(&store, &key, "and on").await;
    say(&store, &key, "and on").await;
    assert_eq!(store.load(&key, None).await.unwrap().records.len(), 3);

    // A failover loses a turn that another was built on already.
    let at = store.load(&key, None).await.unwrap().cursor;
    shelf.lose(&key, 1);
    store.append(&key, &at, &turn(&key, "built on what is lost")).await.unwrap();
    say(&store, &key, "and on").await;
    assert_eq!(store.load(&key, None).await.unwrap().records.len(), 3);
}

async fn a_key_that_is_not_there_is_named<I: Inside>() {
    let inside = I::new().await;
    say(&encrypted(&inside), &key("a"), "canary").await;
    let other = Encrypted::new(inside.store(), ring(&[NEW_KEY]));
    let (kind, text) = refusal(&other, &key("a")).await;
    assert_eq!(kind, StoreErrorKind::Conflict);
    assert!(text.contains("the key old, which is not in the key ring"), "{text}");

    let same_id = KeyRing::parse(&NEW_KEY.replace("new", "old")).unwrap();
    let (kind, text) = refusal(&Encrypted::new(inside.store(), same_id), &key("a")).await;
    assert_eq!(kind, StoreErrorKind::Corrupt);
    assert!(text.contains("does not open with the key old"), "{text}");
}

async fn keys_are_rotated_without_a_session_noticing<I: Inside>() {
    let inside = I::new().await;
    let stages: [&[&str]; 4] = [&[OLD_KEY], &[OLD_KEY, NEW_KEY], &[NEW_KEY, OLD_KEY], &[NEW_KEY]];
    let mut said = Vec::new();
    for keys in &stages[..3] {
        let store = Encrypted::new(inside.store(), ring(keys));
        said.push(say(&store, &key("a"), "canary").await);
        assert_eq!(records(&store.load(&key("a"), None).await.unwrap().records), records(&said));
    }
    let used = inside.records(&key("a")).await;
    let used: Vec<bool> =
        used.iter().map(|record| String::from_utf8_lossy(record).contains(r#""key":"new""#)).collect();
    assert_eq!(used, [false, false, true], "the first key of a ring seals");

    let last = Encrypted::new(inside.store(), ring(stages[3]));
    assert_eq!(
        refusal(&last, &key("a")).await.0,
        StoreErrorKind::Conflict,
        "the old key was taken away early"
    );
    say(&last, &key("b"), "canary").await;
    assert_eq!(last.load(&key("b"), None).await.unwrap().records.len(), 1);
}

async fn a_plain_record_is_refused_unless_that_is_asked_for<I: Inside>() {
    let inside = I::new().await;
    let plain = say(&inside.store(), &key("a"), "from before").await;
    let (kind, text) = refusal(&encrypted(&inside), &key("a")).await;
    assert_eq!(kind, StoreErrorKind::Conflict);
    assert!(text.contains("not encrypted"), "{text}");

    let accepting = encrypted(&inside).danger_accept_plain_records();
    let sealed = say(&accepting, &key("a"), "from now on").await;
    assert_eq!(records(&accepting.load(&key("a"), None).await.unwrap().records), records(&[plain, sealed]));
    let stored = inside.records(&key("a")).await;
    assert!(String::from_utf8_lossy(&stored[1]).contains("xchacha20-poly1305"), "new records are encrypted");
}

async fn the_same_turn_is_never_sealed_to_the_same_bytes<I: Inside>() {
    let (one, two) = (I::new().await, I::new().await);
    let turn = turn(&key("a"), "canary");
    for inside in [&one, &two] {
        let store = encrypted(inside);
        let at = store.load(&key("a"), None).await.unwrap().cursor;
        store.append(&key("a"), &at, &turn).await.unwrap();
    }
    let (one, two) = (&one.records(&key("a")).await[0], &two.records(&key("a")).await[0]);
    let head = one.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    assert_eq!(one[..head], two[..head]);
    assert_ne!(one[head..head + 24], two[head..head + 24], "each record has a nonce of its own");
    assert_ne!(one[head + 24..], two[head + 24..]);
}

#[tokio::test]
async fn a_turn_that_is_sent_again_is_stored_once() {
    let store = encrypted(&Shelf::default());
    let at = store.load(&key("a"), None).await.unwrap().cursor;
    let turn = turn(&key("a"), "once");
    assert!(matches!(store.append(&key("a"), &at, &turn).await.unwrap(), Appended::Appended { .. }));
    assert!(matches!(store.append(&key("a"), &at, &turn).await.unwrap(), Appended::AlreadyThere(_)));
    assert_eq!(records(&store.load(&key("a"), None).await.unwrap().records), records(&[turn]));
}

#[test]
fn a_ring_that_is_wrong_is_refused_without_quoting_it() {
    let short = "id c2hvcnQtY2FuYXJ5";
    for (text, expected) in [
        ("", InvalidKeyRing::Empty),
        ("# only a comment\n\n", InvalidKeyRing::Empty),
        ("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", InvalidKeyRing::Line(1)),
        (short, InvalidKeyRing::Key(1)),
        ("\na/b AAAA", InvalidKeyRing::Id(2)),
        (&format!("{OLD_KEY}\n{}", OLD_KEY.replace("old", "again")), InvalidKeyRing::Twice(2)),
        (&format!("{OLD_KEY}\n{}", NEW_KEY.replace("new", "old")), InvalidKeyRing::Twice(2)),
    ] {
        assert_eq!(KeyRing::parse(text).unwrap_err(), expected);
        assert!(!expected.to_string().contains("canary"));
    }
    let text = format!("{:?}", Encrypted::new(Shelf::default().name(), ring(&[NEW_KEY, OLD_KEY])));
    assert!(text.contains(r#"["new", "old"]"#), "{text}");
    assert!(!text.contains("AAAA") && !text.contains("AQEB") && !text.contains("[1, 1"), "{text}");
}

/// What stands in the file, and beside it in the write-ahead log.
fn on_disk(path: &Path) -> Vec<u8> {
    let files = std::fs::read_dir(path.parent().unwrap()).unwrap();
    files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn no_dump_of_the_file_holds_what_was_said() {
    let secrets = ["canary-of-the-text", "canary-model", "Terse.", "assistant", r#""content""#];
    for sealed in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sessions.db");
        let sqlite = SqliteStore::open(&path).await.unwrap();
        for round in 0..20 {
            match sealed {
                false => say(&sqlite, &key("a"), "canary-of-the-text").await,
                true if round % 2 == 0 => {
                    say(&Encrypted::new(sqlite.clone(), ring(&[OLD_KEY])), &key("a"), "canary-of-the-text")
                        .await
                }
                true => {
                    let store =
                        Cached::new(Compressed::new(Encrypted::new(sqlite.clone(), ring(&[OLD_KEY]))));
                    say(&store, &key("a"), &"canary-of-the-text".repeat(100)).await
                }
            };
        }
        for open in [true, false] {
            if !open {
                sqlite.close().await;
            }
            let dump = on_disk(&path);
            assert!(dump.len() > 10_000, "the file is what is looked at");
            for secret in secrets {
                assert_eq!(holds(&dump, secret), !sealed, "{secret}, sealed = {sealed}, open = {open}");
            }
        }
    }
}

#[tokio::test]
async fn records_and_rows_that_are_swapped_in_the_file_are_refused() {
    for swap in [
        // Each record under the id of the other.
        "UPDATE turns SET record = CASE seq WHEN 1 THEN (SELECT record FROM turns WHERE seq = 2)
             ELSE (SELECT record FROM turns WHERE seq = 1) END WHERE seq < 3",
        // Whole rows.
        "UPDATE turns SET seq = -seq WHERE seq < 3; UPDATE turns SET seq = 3 + seq WHERE seq < 0",
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sessions.db");
        let sqlite = SqliteStore::open(&path).await.unwrap();
        let store = Encrypted::new(sqlite, ring(&[OLD_KEY]));
        for round in 0..4 {
            say(&store, &key("a"), &round.to_string()).await;
        }
        rusqlite::Connection::open(&path).unwrap().execute_batch(swap).unwrap();
        assert_eq!(refusal(&store, &key("a")).await.0, StoreErrorKind::Corrupt, "{swap}");
    }
}

/// Redis keeps what it says of a log and its turns beside the records, where nothing authenticates it.
#[tokio::test]
async fn no_flipped_byte_of_a_redis_log_makes_it_say_something_else() {
    for sealed in [false, true] {
        let inside = InRedis::new().await;
        let (plain, encrypted) = (inside.store(), encrypted(&inside));
        let load = async |after: Option<&Cursor>| match sealed {
            true => encrypted.load(&key("a"), after).await,
            false => plain.load(&key("a"), after).await,
        };
        let mut cursors = Vec::new();
        for round in 0..4 {
            match sealed {
                true => say(&encrypted, &key("a"), &round.to_string()).await,
                false => say(&plain, &key("a"), &round.to_string()).await,
            };
            cursors.push(load(None).await.unwrap().cursor);
        }
        let genuine = records(&load(None).await.unwrap().records);
        let value = inside.value(&key("a")).await;
        let stored = inside.records(&key("a")).await;
        let starts = stored.iter().map(|record| {
            let place = value.windows(record.len()).position(|bytes| bytes == record).unwrap();
            place..place + record.len()
        });
        let places: Vec<_> = starts.collect();
        let (mut refused, mut same) = (0, 0);
        for at in 0..value.len() {
            if places.iter().any(|record| record.contains(&at)) {
                continue; // a record is sealed, or nothing guards it
            }
            for flip in flips::<InRedis>(at) {
                let mut damaged = value.to_vec();
                damaged[at] ^= flip;
                inside.put_value(&key("a"), &damaged).await;
                for after in [None, Some(0), Some(2), Some(3)] {
                    match load(after.map(|place: usize| &cursors[place])).await {
                        Err(error) => {
                            let kinds = [StoreErrorKind::Corrupt, StoreErrorKind::Conflict];
                            assert!(kinds.contains(&error.kind()), "byte {at} ^ {flip}: {}", text(&error));
                            refused += 1;
                        }
                        Ok(loaded) => {
                            let known = after.filter(|_| !loaded.from_start).map_or(0, |place| place + 1);
                            let found = records(&loaded.records);
                            assert_eq!(found, genuine[known..], "byte {at} ^ {flip} after {after:?}");
                            same += 1;
                        }
                    }
                }
            }
        }
        println!("sealed {sealed}: {refused} loads of damaged logs were refused, {same} read what was said");
        assert!(refused > 1000, "most of it counts");
    }
}

/// What version 1 wrote must open for as long as sessions live.
#[tokio::test]
async fn a_record_that_was_sealed_before_still_opens() {
    let shelf = Shelf::default();
    let at: Cursor = shelf.load(&key("a"), None).await.unwrap().cursor;
    let record = Bytes::from_static(include_bytes!("sealed-1.0.record"));
    let sealed = Record::decode(record, key("a").digest()).unwrap();
    shelf.append(&key("a"), &at, &sealed).await.unwrap();
    let opened = encrypted(&shelf).load(&key("a"), None).await.unwrap().records[0].clone();
    assert_eq!(
        opened.turn().unwrap().item_bytes(),
        r#"{"role":"user","content":"kept for years"},{"role":"assistant","content":"yes"}"#
    );
}
