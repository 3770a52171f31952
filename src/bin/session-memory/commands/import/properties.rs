//! Properties of any source: no panic, no loss in silence, and every stored turn can be sent.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::{Value, json};
use tower_session_memory::{
    history::{Log, Record, Turn},
    unstable::valid,
};

use super::{
    piece::{Entry, Kind},
    report::Why,
    tests::{ai_calls, entries, key, lc, read, tool, turns},
    turns::{Turns, build},
};

/// JSON of any shape.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let names = prop_oneof![
            Just("type"),
            Just("data"),
            Just("content"),
            Just("text"),
            Just("tool_calls"),
            Just("id"),
            Just("args"),
            Just("source"),
            Just("image_url"),
            Just("additional_kwargs"),
            Just("output"),
            Just("role"),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((names, inner), 0..5).prop_map(|members| members
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect()),
        ]
    })
}

fn any_id() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("a"), Just("b"), Just("c")]
}

fn any_langchain() -> impl Strategy<Value = Value> {
    prop_oneof![
        3 => "[a-z]{0,3}".prop_map(|text| lc("human", text)),
        3 => "[a-z]{0,3}".prop_map(|text| lc("ai", text)),
        1 => Just(lc("system", "S")),
        2 => prop::collection::vec(any_id(), 1..3).prop_map(|ids| ai_calls(&ids)),
        3 => any_id().prop_map(tool),
        1 => any_json().prop_map(|data| json!({"type": "ai", "data": data})),
        1 => any_json().prop_map(|content| lc("human", content)),
        1 => any_json(),
    ]
}

fn any_item() -> impl Strategy<Value = Value> {
    prop_oneof![
        3 => "[a-z]{0,3}".prop_map(|text| json!({"role": "user", "content": text})),
        3 => "[a-z]{0,3}".prop_map(|text| json!({"role": "assistant", "content": text})),
        2 => any_id().prop_map(|id| json!({"type": "function_call", "call_id": id, "name": "f", "arguments": "{}"})),
        3 => any_id().prop_map(|id| json!({"type": "function_call_output", "call_id": id, "output": "x"})),
        1 => any_json().prop_map(|content| json!({"role": "user", "content": content})),
        1 => any_json(),
    ]
}

/// Every message is in a turn, waits for a reply, or is named.
fn nothing_is_lost(kind: &str, source: &[Entry]) {
    let said = read(kind, source);
    let whole = |why: &Why| !matches!(why, Why::Part(_) | Why::Call | Why::Reasoning);
    let mut named: Vec<usize> = said.left.iter().map(|(at, _)| *at).collect();
    named.extend(said.pieces.iter().map(|piece| piece.last));
    if kind == "langchain" {
        assert!((0..source.len()).all(|at| named.contains(&at)), "an entry is neither a message nor named");
    }
    let repeated = said.pieces.iter().filter(|piece| matches!(piece.kind, Kind::Instruction)).count();
    let pieces = said.pieces.len();
    let turns = build(kind, &key(), source, said.pieces).unwrap();
    let stored: usize =
        turns.turns.iter().filter_map(Record::turn).map(|turn| turn.len() + turn.instructions().len()).sum();
    let left = turns.left.iter().filter(|(_, why)| whole(why)).count();
    let found = stored + turns.unanswered + left;
    assert!(found <= pieces && found + repeated >= pieces, "{found} of {pieces}");
    for turn in &turns.turns {
        Record::decode(turn.bytes().clone(), key().digest()).unwrap();
    }
}

/// The view of these turns has no result without its call, and no call that is answered in part.
fn providers_take_it(turns: &[Record]) {
    let log: Log = turns.iter().cloned().collect();
    let path = log.path();
    let mut open: Vec<String> = Vec::new();
    for about in valid(&path, &[]).turns().flat_map(Turn::about) {
        if about.answers.is_empty() {
            assert!(open.is_empty(), "a call has no result");
            open = about.calls.clone();
        }
        for id in &about.answers {
            open.remove(open.iter().position(|call| call == id).unwrap());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_messages_are_read_and_none_is_lost(json in prop::collection::vec(any_langchain(), 0..12), cut in 0_usize..12) {
        let source = entries(&json);
        nothing_is_lost("langchain", &source);
        let all = turns("langchain", &json);
        providers_take_it(&all.turns);
        let part = turns("langchain", &json[..cut.min(json.len())]);
        let ids = |turns: &Turns| turns.turns.iter().map(Record::id).collect::<Vec<_>>();
        prop_assert!(ids(&all).starts_with(&ids(&part)), "what was imported before is recognised");
    }

    #[test]
    fn any_items_are_read_and_none_is_lost(json in prop::collection::vec(any_item(), 0..12)) {
        nothing_is_lost("agents", &entries(&json));
        providers_take_it(&turns("agents", &json).turns);
    }

    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let source = [Entry { json: bytes, at: None }];
        nothing_is_lost("langchain", &source);
        nothing_is_lost("agents", &source);
    }
}
