//! Records of other versions: a newer minor version's are kept as they are, a newer major version's refused.

use std::error::Error;

use bytes::Bytes;
use tower_session_memory::{
    history::Record,
    store::{
        Appended, Cached, Compressed, Encrypted, HistoryStore, InMemoryStore, StoreError, StoreErrorKind,
    },
};

use super::{
    inside::{Inside, on_every_store},
    support::{OLD_KEY, key, records, ring, say, turn},
};
use crate::turns::add;

on_every_store! {
    what_a_newer_minor_version_recorded_is_kept_through_all_wrappers
    what_a_newer_minor_version_recorded_can_be_moved_between_stores
    an_envelope_of_a_newer_minor_version_is_opened_and_kept
    a_record_of_a_newer_major_version_is_refused_by_the_names_of_both
    a_newer_major_version_inside_an_envelope_is_refused_by_the_names_of_both
}

const NEWER: &str = r#"{"v":"1.93","novelty":{"a":[1, 2.50, null]},"summary_of":"x","#;

/// The same record as a later version may have written it.
fn newer(record: &Bytes) -> Bytes {
    let rest = record.strip_prefix(br#"{"v":"1.0","#).expect("a record begins with its version");
    without_sum(&[NEWER.as_bytes(), rest].concat())
}

/// A record whose checksum, if it has one, is not checked: a changed one has another.
fn without_sum(record: &[u8]) -> Bytes {
    let Some(begin) = record.windows(8).position(|bytes| bytes == b",\"sum\":\"") else {
        return Bytes::copy_from_slice(record);
    };
    let end = begin + record[begin..].iter().position(|byte| *byte == b'}').unwrap();
    [&record[..begin], &record[end..]].concat().into()
}

fn newer_turn(session: &str, text: &str) -> Record {
    let key = key(session);
    Record::decode(newer(turn(&key, text).bytes()), key.digest()).unwrap()
}

/// The same record of a version that no program knows yet.
fn of_version_two(record: &Bytes) -> Bytes {
    let end = record.iter().position(|byte| *byte == b'\n').unwrap();
    let head = std::str::from_utf8(&record[..end]).unwrap().replacen("\"1.0\"", "\"2.0\"", 1);
    [head.as_bytes(), &record[end..]].concat().into()
}

/// Whatever else its header holds by then.
fn of_version_two_and_otherwise(record: &Bytes) -> Bytes {
    let two = of_version_two(record);
    let id = String::from_utf8_lossy(&two)[..80].to_owned();
    let id = id.split("\"id\":\"").nth(1).unwrap()[..36].to_owned();
    format!("{{\"v\":\"2.0\",\"id\":\"{id}\",\"turns\":[{{}}]}}\nanything").into()
}

fn all<S: HistoryStore>(store: S) -> Cached<Compressed<Encrypted<S>>> {
    Cached::new(Compressed::new(Encrypted::new(store, ring(&[OLD_KEY]))).with_min_bytes(0))
}

fn assert_names_both(error: &StoreError) {
    assert_eq!(error.kind(), StoreErrorKind::Conflict, "nothing is damaged: {error:?}");
    // Only the first cause is logged.
    let text = error.source().expect("it says why").to_string();
    assert!(text.contains("version 2.0; this program reads 1.x"), "{text}");
}

async fn what_a_newer_minor_version_recorded_is_kept_through_all_wrappers<I: Inside>() {
    let inside = I::new().await;
    let store = all(inside.store());
    let mut said = Vec::new();
    for round in 0..6 {
        let turn = match round % 2 {
            0 => newer_turn("a", &"newer ".repeat(50)),
            _ => turn(&key("a"), "older"),
        };
        add(&store, &key("a"), &turn).await;
        said.push(turn);
        for store in [&store, &all(inside.store())] {
            assert_eq!(records(&store.load(&key("a"), None).await.unwrap().records), records(&said));
        }
    }
}

async fn what_a_newer_minor_version_recorded_can_be_moved_between_stores<I: Inside>() {
    let (inside, between) = (I::new().await, InMemoryStore::new());
    let store = inside.store();
    for text in ["one", "two", "three"] {
        add(&store, &key("a"), &newer_turn("a", text)).await;
    }
    let before = store.load(&key("a"), None).await.unwrap().records;
    for turn in &before {
        add(&between, &key("a"), turn).await;
    }
    store.delete(&key("a")).await.unwrap();
    let mut at = store.load(&key("a"), None).await.unwrap().cursor;
    for turn in between.load(&key("a"), None).await.unwrap().records {
        let Appended::Appended { cursor: next, .. } = store.append(&key("a"), &at, &turn).await.unwrap()
        else {
            panic!()
        };
        at = next;
    }
    let after = store.load(&key("a"), None).await.unwrap().records;
    assert_eq!(records(&after), records(&before));
    assert_eq!(inside.records(&key("a")).await, records(&before), "and so it stands in the store");
}

async fn an_envelope_of_a_newer_minor_version_is_opened_and_kept<I: Inside>() {
    let inside = I::new().await;
    let store = Compressed::new(inside.store()).with_min_bytes(0);
    let first = say(&store, &key("a"), &"one ".repeat(100)).await;
    let mut stored = inside.records(&key("a")).await;
    stored[0] = newer(&stored[0]);
    inside.put(&key("a"), &stored).await;
    let second = say(&store, &key("a"), "two").await;
    assert_eq!(records(&store.load(&key("a"), None).await.unwrap().records), records(&[first, second]));
    assert_eq!(inside.records(&key("a")).await[0], stored[0]);
}

async fn a_record_of_a_newer_major_version_is_refused_by_the_names_of_both<I: Inside>() {
    for change in [of_version_two, of_version_two_and_otherwise] {
        let inside = I::new().await;
        let store = inside.store();
        let mut cursors = Vec::new();
        for text in ["one", "two", "three"] {
            cursors.push(add(&store, &key("a"), &turn(&key("a"), text)).await);
        }
        let before = inside.records(&key("a")).await;
        let mut stored = before.clone();
        stored[1] = change(&stored[1]);
        inside.put(&key("a"), &stored).await;
        let wrapped = Cached::new(Compressed::new(inside.store()));
        for after in [None, Some(&cursors[0])] {
            assert_names_both(&store.load(&key("a"), after).await.unwrap_err());
            assert_names_both(&wrapped.load(&key("a"), after).await.unwrap_err());
        }
        assert_eq!(inside.records(&key("a")).await, stored, "it is left as it is");
        inside.put(&key("a"), &before).await;
        assert_eq!(store.load(&key("a"), None).await.unwrap().records.len(), 3);
    }
}

async fn a_newer_major_version_inside_an_envelope_is_refused_by_the_names_of_both<I: Inside>() {
    let inside = I::new().await;
    let secret = Encrypted::new(inside.store(), ring(&[OLD_KEY]));
    let turn = turn(&key("a"), &"one ".repeat(100));
    // What a later version's wrapper puts around a record that this one cannot read.
    let unread = |turn: &Record| {
        let plain = of_version_two(turn.bytes());
        let packed = |_: &[u8]| {
            let mut packer = zstd::bulk::Compressor::new(1)?;
            packer.include_checksum(true)?;
            packer.compress(&plain)
        };
        turn.enclose("zstd", None, packed).unwrap()
    };
    add(&secret, &key("a"), &unread(&turn)).await;
    let store = Compressed::new(Encrypted::new(inside.store(), ring(&[OLD_KEY])));
    assert_names_both(&store.load(&key("a"), None).await.unwrap_err());

    // The outer envelope of such a version.
    let mut stored = inside.records(&key("a")).await;
    stored[0] = of_version_two(&stored[0]);
    inside.put(&key("a"), &stored).await;
    assert_names_both(&store.load(&key("a"), None).await.unwrap_err());
}
