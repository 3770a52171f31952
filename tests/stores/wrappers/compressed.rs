//! Compression: smaller, mixed with what is not, and bounded.

use bytes::Bytes;
use tower_session_memory::{
    history::Record,
    store::{Compressed, HistoryStore, StoreErrorKind},
};

use super::support::{Shelf, key, records, say, turn};

const PROSE: &str = "It was the best of times, it was the worst of times. ";

#[tokio::test]
async fn prose_takes_less_room_and_comes_back_as_it_was() {
    let shelf = Shelf::default();
    let store = Compressed::new(shelf.clone());
    let said = say(&store, &key("a"), &PROSE.repeat(100)).await;
    let stored = &shelf.log(&key("a")).records[0];
    assert!(stored.len() < said.bytes().len() / 4, "{} of {}", stored.len(), said.bytes().len());
    let head = String::from_utf8_lossy(&stored[..200]);
    assert!(head.starts_with(r#"{"v":"1.0","id":""#) && head.contains(r#""coding":"zstd"}"#), "{head}");
    assert_eq!(records(&store.load(&key("a"), None).await.unwrap().records), [said.bytes().clone()]);
}

#[tokio::test]
async fn small_records_and_what_does_not_compress_are_left_alone() {
    let shelf = Shelf::default();
    let small = say(&Compressed::new(shelf.clone()).with_min_bytes(4096), &key("a"), &PROSE.repeat(50)).await;
    let mut noise = 1_u64;
    let digits: String = (0..4000)
        .map(|_| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from_u32(0x1_0000 + (noise >> 48) as u32).unwrap_or('x')
        })
        .collect();
    let random = say(&Compressed::new(shelf.clone()), &key("b"), &digits).await;
    assert_eq!(shelf.log(&key("a")).records, [small.bytes().clone()]);
    assert!(shelf.log(&key("b")).records[0].len() <= random.bytes().len(), "never larger than before");
}

#[tokio::test]
async fn compressed_and_plain_turns_of_one_session_are_read_alike() {
    let shelf = Shelf::default();
    let compressed = Compressed::new(shelf.clone());
    let mut said = Vec::new();
    for round in 0..6 {
        let text = PROSE.repeat(20);
        said.push(match round % 2 {
            0 => say(&compressed, &key("a"), &text).await,
            _ => say(&shelf, &key("a"), &text).await,
        });
    }
    let coded = |record: &&Bytes| String::from_utf8_lossy(record).contains(r#""coding":"zstd""#);
    assert_eq!(shelf.log(&key("a")).records.iter().filter(coded).count(), 3, "both kinds are there");
    assert_eq!(records(&compressed.load(&key("a"), None).await.unwrap().records), records(&said));
}

#[tokio::test]
async fn a_damaged_record_is_refused_and_never_read_wrong() {
    let shelf = Shelf::default();
    let store = Compressed::new(shelf.clone());
    let said = say(&store, &key("a"), &PROSE.repeat(100)).await;
    let stored = shelf.log(&key("a")).records[0].clone();
    let head = stored.iter().position(|byte| *byte == b'\n').unwrap();
    for at in head + 1..stored.len() {
        for flip in [1_u8, 2, 4, 8, 16, 32, 64, 128, 255] {
            let mut damaged = stored.to_vec();
            damaged[at] ^= flip;
            shelf.tamper(&key("a"), |log| log.records[0] = damaged.into());
            match store.load(&key("a"), None).await {
                Err(error) => assert_eq!(error.kind(), StoreErrorKind::Corrupt),
                // A bit of the frame that means nothing.
                Ok(loaded) => assert_eq!(loaded.records[0].bytes(), said.bytes(), "byte {at} ^ {flip}"),
            }
        }
    }
    for end in 0..stored.len() {
        shelf.tamper(&key("a"), |log| log.records[0] = stored.slice(..end));
        assert!(store.load(&key("a"), None).await.is_err(), "cut after {end} bytes");
    }
    shelf.tamper(&key("a"), |log| log.records[0] = [&stored[..], &stored[head + 1..]].concat().into());
    assert!(store.load(&key("a"), None).await.is_err(), "two frames");
}

#[tokio::test]
async fn a_record_does_not_unpack_to_more_than_the_limit() {
    let shelf = Shelf::default();
    let generous = Compressed::new(shelf.clone());
    say(&generous, &key("a"), &PROSE.repeat(10_000)).await;
    let strict = Compressed::new(shelf.clone()).with_max_bytes(100_000);
    let error = strict.load(&key("a"), None).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    let at = generous.load(&key("b"), None).await.unwrap().cursor;
    let large = turn(&key("b"), &PROSE.repeat(10_000));
    let error = strict.append(&key("b"), &at, &large).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::TooLarge, "what could not be read is not written");
}

#[tokio::test]
async fn the_record_of_one_turn_in_the_envelope_of_another_is_refused() {
    let shelf = Shelf::default();
    let store = Compressed::new(shelf.clone());
    say(&store, &key("a"), &PROSE.repeat(100)).await;
    say(&store, &key("a"), &PROSE.repeat(100)).await;
    shelf.tamper(&key("a"), |log| {
        let halves = |record: &Bytes| {
            let head = record.iter().position(|byte| *byte == b'\n').unwrap() + 1;
            (record.slice(..head), record.slice(head..))
        };
        let (one, two) = (halves(&log.records[0]), halves(&log.records[1]));
        log.records = vec![[one.0, two.1].concat().into(), [two.0, one.1].concat().into()];
    });
    let error = store.load(&key("a"), None).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
}

#[tokio::test]
async fn without_the_wrapper_an_envelope_is_seen_to_be_one() {
    let shelf = Shelf::default();
    let said = say(&Compressed::new(shelf.clone()), &key("a"), &PROSE.repeat(100)).await;
    let found: Record = shelf.load(&key("a"), None).await.unwrap().records[0].clone();
    assert_eq!(found.envelope().map(|envelope| envelope.coding), Some("zstd"));
    assert_eq!((found.id(), found.parent(), found.at()), (said.id(), said.parent(), said.at()));
    assert!(found.turn().is_none(), "nothing of it can be inserted");
}
