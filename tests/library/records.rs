//! The record of a turn: what any store holds, whatever happens to its bytes.

use std::{
    error::Error,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*};
use serde_json::value::RawValue;
use tower_session_memory::{
    history::{
        About, Author, ClientCase, Format, Item, Parent, Place, Record, RecordError, RecordId, TurnParts,
        TurnState,
    },
    session::{Principal, SessionKey},
};

fn key(id: &str) -> SessionKey {
    SessionKey::new("test", Principal::anonymous(), id.parse().unwrap())
}

fn about() -> impl Strategy<Value = About> {
    let authors = prop_oneof!["instruction|user|model|tool|other", "\\PC{0,8}"];
    let ids = || vec("\\PC{0,8}", 0..3);
    (authors, any::<bool>(), ids(), ids()).prop_map(|(author, opens, calls, answers)| {
        About::new(Author::from(author.as_str())).with_opens(opens).with_calls(calls).with_answers(answers)
    })
}

/// Any bytes are a message here: a record does not look into them.
fn message() -> impl Strategy<Value = Item> {
    let raw = prop_oneof![
        vec(any::<u8>(), 0..40),
        "\\{\"role\":\"user\",\"content\":\"[a-z,\n]*\"\\}".prop_map(String::into_bytes)
    ];
    (raw, about()).prop_map(|(raw, about)| Item::new(raw.into(), about))
}

fn usage() -> impl Strategy<Value = Option<Box<RawValue>>> {
    let json = prop_oneof![
        Just("null"),
        Just("{}"),
        Just("{\n  \"total_tokens\": 12345678901234567890.10,\r\n  \"x\": [1e400, \"\\n\"]\n}"),
    ];
    option::of(json.prop_map(|json| RawValue::from_string(json.to_owned()).unwrap()))
}

fn parent() -> impl Strategy<Value = Parent> {
    prop_oneof![
        Just(Parent::Previous),
        Just(Parent::Root),
        (any::<[u8; 16]>(), 1..9_u32)
            .prop_map(|(id, items)| Parent::At(Place { turn: RecordId::from_bytes(id), items })),
    ]
}

fn parts() -> impl Strategy<Value = TurnParts> {
    let texts = (option::of("\\PC{0,12}|\n\r\t"), option::of("\\PC{0,12}"));
    let items = (vec(message(), 0..3), vec(message(), 0..4), vec(message(), 1..4));
    (any::<[u8; 16]>(), parent(), 0..1_u64 << 50, items, any::<bool>(), texts, usage(), more()).prop_map(
        |(id, parent, at, (instructions, sent, reply), complete, (finish_reason, model), usage, more)| {
            let (response_id, attempt, idempotency_key, client, view, title) = more;
            let mut parts = TurnParts::new(FORMAT, sent, reply);
            parts.id = RecordId::from_bytes(id);
            parts.parent = parent;
            parts.at = SystemTime::UNIX_EPOCH + Duration::from_millis(at);
            parts.instructions = instructions;
            parts.state = if complete { TurnState::Complete } else { TurnState::Interrupted };
            parts.finish_reason = finish_reason;
            parts.model = model;
            parts.usage = usage;
            parts.response_id = response_id;
            parts.attempt = attempt;
            parts.idempotency_key = idempotency_key;
            parts.client = client;
            parts.view = view;
            parts.title = title;
            parts
        },
    )
}

const FORMAT: Format = Format::from_static("test.toy");

type More =
    (Option<String>, Option<u32>, Option<String>, Option<ClientCase>, Option<Box<RawValue>>, Option<String>);

/// Members that most turns lack.
fn more() -> impl Strategy<Value = More> {
    let text = || option::of("\\PC{0,12}");
    let clients = [ClientCase::New, ClientCase::Edit, ClientCase::Retry];
    (
        text(),
        option::of(any::<u32>()),
        text(),
        option::of(prop::sample::select(clients.to_vec())),
        usage(),
        text(),
    )
}

fn without_whitespace(json: Option<&RawValue>) -> Option<String> {
    json.map(|json| json.get().split_ascii_whitespace().collect())
}

/// Touches every accessor: none may panic on what `decode` let through.
fn read_all(record: &Record) {
    let _ = (record.at(), record.parent(), record.kind(), format!("{record:?}"));
    let Some(turn) = record.turn() else { return };
    let items: Vec<Item> = turn.items().collect();
    assert_eq!(items.len(), turn.len());
    assert!(turn.sent() <= items.len());
    let raw: Vec<Bytes> = items.iter().map(|item| item.raw().clone()).collect();
    assert_eq!(turn.item_bytes(), &raw.join(&b','));
    let instructions: Vec<Bytes> = turn.instructions().map(|message| message.raw().clone()).collect();
    assert_eq!(turn.instruction_bytes(), &instructions.join(&b','));
    assert_eq!(turn.about().len(), turn.len());
    let _ = (turn.usage(), turn.view(), turn.client(), turn.attempt(), format!("{turn:?}"));
}

proptest! {
    #[test]
    fn a_turn_comes_back_from_its_record_as_it_was(parts in parts()) {
        let key = key("a");
        let turn = parts.clone().into_record(&key);
        let read = Record::decode(turn.bytes().clone(), key.digest()).unwrap();
        for turn in [&turn, &read] {
            prop_assert_eq!(turn.id(), parts.id);
            prop_assert_eq!(turn.parent(), parts.parent);
            prop_assert_eq!(turn.at(), parts.at);
            prop_assert_eq!(turn.kind(), Some("turn"));
            prop_assert!(turn.belongs_to(key.digest()));
            read_all(turn);
            let turn = turn.turn().unwrap();
            prop_assert_eq!(turn.format(), FORMAT);
            prop_assert_eq!(turn.state(), parts.state);
            prop_assert_eq!(turn.client(), parts.client);
            prop_assert_eq!(turn.response_id(), parts.response_id.as_deref());
            prop_assert_eq!(turn.attempt(), parts.attempt);
            prop_assert_eq!(turn.idempotency_key(), parts.idempotency_key.as_deref());
            prop_assert_eq!(turn.title(), parts.title.as_deref());
            prop_assert_eq!(turn.finish_reason(), parts.finish_reason.as_deref());
            prop_assert_eq!(turn.model(), parts.model.as_deref());
            let null = parts.usage.as_ref().is_some_and(|usage| usage.get() == "null");
            prop_assert!(null || without_whitespace(turn.usage()) == without_whitespace(parts.usage.as_deref()));
            prop_assert_eq!(turn.instructions().collect::<Vec<_>>(), parts.instructions.clone());
            let items = [parts.sent.clone(), parts.reply.clone()].concat();
            prop_assert_eq!(turn.items().collect::<Vec<_>>(), items);
            prop_assert_eq!(turn.sent(), parts.sent.len());
        }
    }

    #[test]
    fn a_record_is_refused_under_any_other_session(parts in parts(), id in "[!-~]{1,128}") {
        let turn = parts.into_record(&key("a"));
        prop_assume!(id != "a");
        let error = Record::decode(turn.bytes().clone(), key(&id).digest()).unwrap_err();
        prop_assert!(matches!(error, RecordError::Foreign), "{error}");
    }

    /// The digest must tell any two keys apart: also those whose parts read the same when they are put together.
    #[test]
    fn a_record_is_refused_under_any_other_key_although_the_parts_read_alike(
        parts in parts(),
        (text, cuts) in ("[a:1]{3,12}", [0_usize..12, 0..12, 0..12, 0..12]),
    ) {
        let key = |first: usize, second: usize| {
            let (first, second) = (first.min(second) % text.len(), first.max(second) % text.len());
            let (first, second) = (first.min(second), first.max(second));
            let principal = Principal::new(&text[first..second]);
            SessionKey::new(&text[..first], principal, text[second..].parse().unwrap())
        };
        let (mine, other) = (key(cuts[0], cuts[1]), key(cuts[2], cuts[3]));
        prop_assume!(mine != other);
        prop_assert_ne!(mine.encode(), other.encode());
        let turn = parts.into_record(&mine);
        prop_assert!(!turn.belongs_to(other.digest()));
        let error = Record::decode(turn.bytes().clone(), other.digest()).unwrap_err();
        prop_assert!(matches!(error, RecordError::Foreign), "{error}");
    }

    #[test]
    fn a_record_is_refused_under_another_principal_or_namespace(parts in parts(), other in "[a-z]{0,4}") {
        let key = |namespace: &str, principal: &str| {
            SessionKey::new(namespace, Principal::new(principal), "s".parse().unwrap())
        };
        prop_assume!(other != "mine");
        let turn = parts.into_record(&key("mine", "mine"));
        for foreign in [key(&other, "mine"), key("mine", &other)] {
            let error = Record::decode(turn.bytes().clone(), foreign.digest()).unwrap_err();
            prop_assert!(matches!(error, RecordError::Foreign), "{error}");
        }
    }

    #[test]
    fn arbitrary_bytes_are_an_error_and_never_a_panic(bytes in vec(any::<u8>(), 0..400)) {
        prop_assert!(Record::decode(bytes.into(), key("a").digest()).is_err());
    }

    #[test]
    fn arbitrary_lengths_in_a_header_are_an_error_or_add_up(
        lengths in vec(prop_oneof![0..20_usize, Just(usize::MAX), Just(usize::MAX / 2), Just(usize::MAX - 1)], 0..4),
        instructions in vec(prop_oneof![0..20_usize, Just(usize::MAX)], 0..3),
        sent in prop_oneof![0..5_usize, Just(usize::MAX)],
        body in "[,\n{}a]{0,40}",
    ) {
        let entries = |lengths: &[usize]| {
            let entries = lengths.iter().map(|len| format!(r#"{{"author":"user","len":{len}}}"#));
            entries.collect::<Vec<_>>().join(",")
        };
        let record = format!(
            r#"{{"v":"1.0","kind":"turn","id":"{}","session":"{}","at":{},"format":"test.toy","state":"complete","instructions":[{}],"items":[{}],"sent":{sent}}}{}"#,
            RecordId::from_bytes([1; 16]),
            key("a").digest().to_hex(),
            u64::MAX,
            entries(&instructions),
            entries(&lengths),
            format_args!("\n{body}"),
        );
        if let Ok(turn) = Record::decode(Bytes::from(record), key("a").digest()) {
            read_all(&turn);
        }
    }

    #[test]
    fn a_damaged_record_is_an_error_or_is_kept_as_it_is(
        parts in parts(),
        at in any::<prop::sample::Index>(),
        flip in 1..=255_u8,
        cut in any::<prop::sample::Index>(),
    ) {
        let key = key("a");
        let record = parts.into_record(&key).bytes().clone();
        let mut flipped = record.to_vec();
        flipped[at.index(record.len())] ^= flip;
        let cut = record.slice(..cut.index(record.len()));
        prop_assert!(Record::decode(cut, key.digest()).is_err(), "a record that ends early is none");
        let flipped = Bytes::from(flipped);
        if let Ok(turn) = Record::decode(flipped.clone(), key.digest()) {
            prop_assert_eq!(turn.bytes(), &flipped);
            read_all(&turn);
        }
    }
}

/// Every byte of one record, each flipped in every way.
#[test]
fn no_flipped_byte_makes_two_messages_of_one() {
    let key = key("a");
    let message = |role, raw: &'static str| Item::new(Bytes::from_static(raw.as_bytes()), About::new(role));
    let sent = vec![message(Author::User, r#"{"role":"user","content":"hi,\nthere"}"#)];
    let reply = vec![message(Author::Model, r#"{"role":"assistant","content":"hello"}"#)];
    let mut parts = TurnParts::new(FORMAT, sent, reply);
    parts.id = RecordId::from_bytes([3; 16]);
    parts.parent = Parent::Root;
    parts.instructions = vec![message(Author::Instruction, r#"{"role":"system","content":"Terse."}"#)];
    parts.finish_reason = Some("stop".to_owned());
    let record = parts.into_record(&key).bytes().clone();
    for (at, flip) in (0..record.len()).flat_map(|at| (1..=255).map(move |flip: u8| (at, flip))) {
        let mut flipped = record.to_vec();
        flipped[at] ^= flip;
        let flipped = Bytes::from(flipped);
        if let Ok(turn) = Record::decode(flipped.clone(), key.digest()) {
            assert_eq!(turn.bytes(), &flipped);
            // The checksum finds every other flip.
            let end = record.iter().position(|byte| *byte == b'\n').unwrap();
            assert!((end - 20..end).contains(&at), "byte {at} flipped by {flip} is not found");
            let read = turn.turn().map(|turn| (turn.instructions().len(), turn.len()));
            assert_eq!(read, Some((1, 2)), "byte {at} flipped by {flip}");
            read_all(&turn);
        }
    }
}

#[test]
fn the_record_of_version_1_0_is_what_its_documentation_says() {
    let key = key("a");
    let item = |about, raw: &'static [u8]| Item::new(Bytes::from_static(raw), about);
    let sent = vec![item(About::new(Author::User), b"{\"u\":1}")];
    let reply = vec![
        item(About::new(Author::Model).with_calls(["c1"]), b"{\"a\":1}"),
        item(About::new(Author::Model).with_opens(true), b"{\"b\":1}"),
    ];
    let mut parts = TurnParts::new(FORMAT, sent, reply);
    parts.id = RecordId::from_bytes([0x11; 16]);
    parts.parent = Parent::At(Place { turn: RecordId::from_bytes([0x22; 16]), items: 3 });
    parts.at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_763_800_000_000);
    parts.instructions = vec![item(About::new(Author::Instruction), b"{\"s\":1}")];
    parts.state = TurnState::Interrupted;
    parts.client = Some(ClientCase::Edit);
    parts.finish_reason = Some("length".to_owned());
    parts.model = Some("m".to_owned());
    parts.usage = Some(RawValue::from_string("{\n\"total_tokens\": 1.0}".to_owned()).unwrap());
    parts.response_id = Some("r".to_owned());
    parts.attempt = Some(1);
    parts.idempotency_key = Some("k".to_owned());
    parts.view = Some(RawValue::from_string("{\"from\":null}".to_owned()).unwrap());
    parts.title = Some("t".to_owned());
    let head = format!(
        concat!(
            r#"{{"v":"1.0","kind":"turn","id":"11111111-1111-1111-1111-111111111111","#,
            r#""parent":{{"turn":"22222222-2222-2222-2222-222222222222","items":3}},"session":"{}","#,
            r#""at":1763800000000,"format":"test.toy","state":"interrupted","client":"edit","#,
            r#""finish_reason":"length","model":"m","response_id":"r","idempotency_key":"k","title":"t","#,
            r#""attempt":1,"usage":{{ "total_tokens": 1.0}},"view":{{"from":null}},"#,
            r#""instructions":[{{"author":"instruction","len":7}}],"items":[{{"author":"user","len":7}},"#,
            r#"{{"author":"model","calls":["c1"],"len":7}},{{"author":"model","opens":true,"len":7}}],"sent":1"#,
        ),
        key.digest().to_hex()
    );
    let body = "{\"s\":1}\n{\"u\":1},{\"a\":1},{\"b\":1}";
    let sum = crc32c::crc32c(format!("{head}{body}").as_bytes());
    let expected = format!("{head},\"sum\":\"{sum:08x}\"}}\n{body}");
    assert_eq!(parts.into_record(&key).bytes(), expected.as_bytes());
}

/// The page that describes the format.
const PAGE: &str = include_str!("../../src/store/format.md");

/// The text of its code blocks.
fn examples() -> Vec<&'static str> {
    let blocks = PAGE.split("```text\n").skip(1);
    blocks.map(|block| block.split("\n```").next().unwrap()).collect()
}

#[test]
fn the_example_in_the_documentation_is_a_record() {
    let key = SessionKey::new("default", Principal::anonymous(), "my-session".parse().unwrap());
    let read = Record::decode(Bytes::from_static(examples()[0].as_bytes()), key.digest()).unwrap();
    let id = |id: &str| RecordId::from_bytes(*uuid::Uuid::parse_str(id).unwrap().as_bytes());
    let message = |about, raw: &'static str| Item::new(Bytes::from_static(raw.as_bytes()), about);
    let sent = vec![message(
        About::new(Author::Tool).with_answers(["c1"]),
        r#"{"role":"tool","tool_call_id":"c1","content":"18 °C"}"#,
    )];
    let reply = vec![message(
        About::new(Author::Model).with_calls(["c2"]),
        r#"{"role":"assistant","content":null,"tool_calls":[{"id":"c2","type":"function","function":{"name":"wind","arguments":"{}"}}]}"#,
    )];
    let mut parts = TurnParts::new(Format::from_static("openai.chat"), sent, reply);
    parts.id = id("0198f3c2-7a10-7c3e-8f21-5b6a4d3e2c1b");
    parts.parent = Parent::At(Place { turn: id("0198f3c2-5e02-7b11-9c40-2f1e0d9c8b7a"), items: 2 });
    parts.at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_763_800_000_000);
    parts.instructions = vec![message(
        About::new(Author::Instruction).with_opens(true),
        r#"{"role":"system","content":"Terse."}"#,
    )];
    parts.client = Some(ClientCase::Delta);
    parts.finish_reason = Some("stop".to_owned());
    parts.model = Some("m".to_owned());
    parts.usage = Some(RawValue::from_string(r#"{"total_tokens":21}"#.to_owned()).unwrap());
    parts.response_id = Some("resp_1".to_owned());
    parts.attempt = Some(0);
    parts.idempotency_key = Some("5e884898da28047151d0e56f8dc62927".to_owned());
    parts.view =
        Some(RawValue::from_string(r#"{"from":"0198f3c2-5e02-7b11-9c40-2f1e0d9c8b7a"}"#.to_owned()).unwrap());
    parts.title = Some("The weather".to_owned());
    let written = parts.into_record(&key);
    assert_eq!(String::from_utf8_lossy(written.bytes()), examples()[0]);
    let items = |record: &Record| record.turn().unwrap().items().collect::<Vec<_>>();
    assert_eq!(items(&read), items(&written));
}

#[test]
fn the_documentation_names_every_member_of_a_record() {
    let header = |example: &str| -> serde_json::Map<String, serde_json::Value> {
        serde_json::from_str(example.lines().next().unwrap()).unwrap()
    };
    let tables = PAGE.split("# Versions").next().unwrap().lines();
    let named: Vec<&str> = tables.filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let record = header(examples()[0]);
    let lists = ["items", "instructions"].into_iter().flat_map(|list| record[list].as_array().unwrap());
    let mut found: Vec<&str> = record.keys().map(String::as_str).collect();
    found.extend(lists.flat_map(|about| about.as_object().unwrap().keys()).map(String::as_str));
    for object in ["parent", "view"] {
        found.extend(record[object].as_object().unwrap().keys().map(String::as_str));
    }
    for name in &found {
        assert!(named.contains(name), "{name} is in the example and in no table");
    }
    for name in &named {
        assert!(found.contains(name), "{name} is in a table and not in the example");
    }
    let text = PAGE.split("# Envelopes").nth(1).unwrap();
    for name in header(examples()[1]).keys() {
        assert!(text.contains(&format!("`{name}`")), "{name} of an envelope is not explained");
    }
}

#[test]
fn the_envelope_in_the_documentation_is_one() {
    let key = SessionKey::new("default", Principal::anonymous(), "my-session".parse().unwrap());
    let envelope = format!("{}\nanything", examples()[1]);
    let turn = Record::decode(Bytes::from(envelope), key.digest()).unwrap();
    assert_eq!(turn.envelope().unwrap().coding, "zstd");
    assert_eq!(turn.envelope().unwrap().body, b"anything");
}

#[test]
fn an_error_repeats_nothing_of_what_it_met() {
    let digest = key("a").digest();
    let records = [
        "\"a secret\"\n\n",
        "{\"v\":\"a secret\"}\n\n",
        "{\"v\":\"2 secret, and a long one\"}\n\n",
        "{\"v\":\"1.0\",\"id\":\"a secret\"}\n\n",
        "{\"v\":\"1.0\",\"state\":\"secret\"}\n\n",
        "{\"v\":\"1.0\",\"secret\n\n",
        "secret",
    ];
    for record in records {
        let error = Record::decode(Bytes::from_static(record.as_bytes()), digest).unwrap_err();
        let text = format!("{error} {error:?} {:?}", error.source());
        assert!(!text.contains("secret"), "{text}");
    }
    let error = Record::decode(Bytes::from_static(b"{\"v\":\"2.0\"}\n\n"), digest).unwrap_err();
    assert!(matches!(error, RecordError::Version(version) if version == "2.0"));
}
