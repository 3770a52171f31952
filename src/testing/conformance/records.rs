use std::num::NonZeroUsize;

use bytes::Bytes;

use super::{
    Harness,
    fixture::{Fixture, appended, assert_same, turn, turn_of},
};
use crate::{
    history::{About, Author, Item, Parent, Record, RecordId},
    store::Retention,
};

pub(super) async fn records_come_back_byte_for_byte<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    let key = fixture.key("a");
    let contents: [&[u8]; 6] = [
        b"{\"role\":\"user\",\"content\":\"plain\"}",
        b"{ \"content\" : 1e2 ,\r\n\t\"role\":\"user\", \"role\":\"user\" }",
        "{\"content\":\"💬 \u{2028}\u{0}\u{7f} \\ud83d \\u0000\"}".as_bytes(),
        b"{\"n\":12345678901234567890.1234567890,\"z\":1.0}",
        b"\x00\x01\xff\xfe\r\n\n\n,{}",
        b"",
    ];
    let mut cursor = fixture.load(&key).await.cursor;
    let mut turns = Vec::new();
    for sent in contents {
        let reply = Bytes::from_static(b"{\"role\":\"assistant\",\"content\":\"\\n\"}");
        let instructions = vec![Item::new(Bytes::from_static(sent), About::new(Author::Instruction))];
        let turn = turn_of(&key, instructions, Bytes::from_static(sent), reply, Parent::Previous);
        cursor = appended(fixture.append(&key, &cursor, &turn).await);
        turns.push(turn);
    }
    assert_same(&fixture.load(&key).await.records, &turns, "the store does not look into a record");
}

pub(super) async fn what_a_newer_version_recorded_is_kept<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    let key = fixture.key("a");
    let newer = newer_version_of(&turn(&key, "from the future"));
    let newer = Record::decode(newer.clone(), key.digest()).expect("a newer minor version can be read");
    let at = fixture.load(&key).await.cursor;
    appended(fixture.append(&key, &at, &newer).await);
    assert_same(&fixture.load(&key).await.records, &[newer], "unknown header fields are kept");
}

/// A store that writes a log anew when it is trimmed keeps what it does not know.
pub(super) async fn what_a_newer_version_recorded_survives_trimming<H: Harness>(harness: &H) {
    let fixture = Fixture::with(harness, Retention::new().with_max_turns(NonZeroUsize::new(3))).await;
    let key = fixture.key("a");
    let mut at = fixture.load(&key).await.cursor;
    let mut turns = Vec::new();
    for number in 0..12 {
        let turn = turn(&key, &"x".repeat(number * 50));
        let newer = Record::decode(newer_version_of(&turn), key.digest());
        let turn = if number % 3 == 2 { turn } else { newer.expect("a newer minor version can be read") };
        at = appended(fixture.append(&key, &at, &turn).await);
        turns.push(turn);
        let kept = &turns[turns.len().saturating_sub(3)..];
        assert_same(&fixture.load(&key).await.records, kept, "trimming changes no record that stays");
    }
}

fn newer_version_of(turn: &Record) -> Bytes {
    let old = br#"{"v":"1.0","#;
    let new = br#"{"v":"1.93","novelty":{"a":[1, 2.50, null]},"summary_of":"x","#;
    let rest = turn.bytes().strip_prefix(old).expect("a record begins with its version");
    without_sum(&[new, rest].concat())
}

/// A record whose checksum is not checked: a changed one has another.
fn without_sum(record: &[u8]) -> Bytes {
    let begin = record.windows(8).position(|bytes| bytes == b",\"sum\":\"").expect("a record has a checksum");
    let end = begin + record[begin..].iter().position(|byte| *byte == b'}').expect("a header ends");
    Bytes::from([&record[..begin], &record[end..]].concat())
}

/// Kinds that a later version adds are in the log beside its turns.
pub(super) async fn a_record_of_an_unknown_kind_is_kept<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    let key = fixture.key("a");
    let first = turn(&key, "one");
    let header = format!(
        r#"{{"v":"1.4","kind":"summary","id":"{}","session":"{}","at":1,"items":"none","of":[1, 2.0]}}"#,
        RecordId::new(),
        key.digest().to_hex(),
    );
    let summary = Record::decode(Bytes::from(header + "\nany\nbytes"), key.digest());
    let summary = summary.expect("a record of another kind can be read");
    let second = turn(&key, "two");
    let mut at = fixture.load(&key).await.cursor;
    for record in [&first, &summary, &second] {
        at = appended(fixture.append(&key, &at, record).await);
    }
    assert_same(&fixture.load(&key).await.records, &[first, summary, second], "a summary is kept as it is");
}

pub(super) async fn a_record_of_eight_mebibytes_is_stored_whole<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    let key = fixture.key("a");
    let text = "0123456789abcdef".repeat(8 * 1024 * 1024 / 16);
    let (turns, cursor) = fixture.say(&key, &["small", &text, "small again"]).await;
    assert_same(&fixture.load(&key).await.records, &turns, "a large record among small ones");
    let after = fixture.load_after(&key, Some(&cursor)).await;
    assert!(after.records.is_empty(), "a large record need not come again");
}
