//! Conversion of what the packages write, and of what no package should write.

#![allow(clippy::unwrap_used, clippy::panic)]

use serde_json::{Value, json};
use tower_session_memory::{
    history::{Log, Record},
    session::{Principal, SessionKey},
    unstable::valid,
};

use super::{
    agents, langchain,
    piece::{Entry, Transcript},
    report::Why,
    turns::{Turns, build},
};

pub(super) fn key() -> SessionKey {
    SessionKey::new("default", Principal::anonymous(), "kitchen".parse().unwrap())
}

pub(super) fn entries(json: &[Value]) -> Vec<Entry> {
    json.iter().map(|json| Entry { json: json.to_string().into_bytes(), at: None }).collect()
}

pub(super) fn read(kind: &str, entries: &[Entry]) -> Transcript {
    if kind == "agents" { agents::read_all(entries) } else { langchain::read_all(entries) }
}

pub(super) fn turns(kind: &str, json: &[Value]) -> Turns {
    let entries = entries(json);
    let said = read(kind, &entries);
    let mut turns = build(kind, &key(), &entries, said.pieces).unwrap();
    turns.left.extend(said.left);
    turns
}

fn messages(turn: &Record) -> Vec<Value> {
    turn.turn().unwrap().items().map(|message| serde_json::from_slice(message.raw()).unwrap()).collect()
}

fn all(turns: &Turns) -> Vec<Vec<Value>> {
    turns.turns.iter().map(messages).collect()
}

pub(super) fn lc(kind: &str, content: impl Into<Value>) -> Value {
    json!({"type": kind, "data": {"content": content.into(), "additional_kwargs": {}, "type": kind}})
}

fn with(mut message: Value, name: &str, value: Value) -> Value {
    message["data"][name] = value;
    message
}

pub(super) fn ai_calls(ids: &[&str]) -> Value {
    let calls: Vec<_> =
        ids.iter().map(|id| json!({"id": id, "name": "f", "args": {"a": 1}, "type": "tool_call"})).collect();
    with(lc("ai", ""), "tool_calls", calls.into())
}

pub(super) fn tool(id: &str) -> Value {
    with(lc("tool", "5"), "tool_call_id", id.into())
}

#[test]
fn a_conversation_becomes_turns_that_end_with_each_reply() {
    let turns = turns(
        "langchain",
        &[
            lc("system", "Terse."),
            lc("human", "2 + 3?"),
            ai_calls(&["c"]),
            tool("c"),
            lc("AIMessageChunk", "5"),
            lc("human", "Sure?"),
        ],
    );
    assert_eq!(
        all(&turns),
        [
            vec![
                json!({"role": "user", "content": "2 + 3?"}),
                json!({"role": "assistant", "content": null, "tool_calls": [
                    {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}}]}),
            ],
            vec![
                json!({"role": "tool", "tool_call_id": "c", "content": "5"}),
                json!({"role": "assistant", "content": "5"}),
            ],
        ]
    );
    assert_eq!(turns.turns[0].turn().unwrap().instructions().len(), 1);
    assert_eq!(turns.unanswered, 1, "the question that nobody has answered yet is no turn");
    assert!(turns.left.is_empty());
}

#[test]
fn the_providers_own_form_of_a_call_is_kept_and_what_is_no_json_too() {
    let sent = json!([{"index": 0, "id": "c", "type": "function", "extra_content": {"signature": "s"},
        "function": {"name": "f", "arguments": "{ \"a\": 1.0 }"}}]);
    let call = with(ai_calls(&["c"]), "additional_kwargs", json!({"tool_calls": sent, "refusal": null}));
    let broken =
        json!([{"id": "d", "name": "f", "args": "{\"a\":", "error": "cut", "type": "invalid_tool_call"}]);
    let turns = turns("langchain", &[lc("human", "x"), with(call, "invalid_tool_calls", broken)]);
    let reply = &all(&turns)[0][1];
    let calls = &reply["tool_calls"];
    assert_eq!(calls[0]["function"]["arguments"], "{ \"a\": 1.0 }");
    assert_eq!(calls[0]["extra_content"]["signature"], "s");
    assert!(calls[0].get("index").is_none());
    assert_eq!(calls[1]["function"]["arguments"], "{\"a\":");
    assert!(turns.left.is_empty());
}

#[test]
fn a_call_in_the_providers_form_that_cannot_be_read_is_named() {
    let nameless = json!({"tool_calls": [{"type": "function", "function": {"name": "f"}}, {"id": "c"}]});
    let both = with(ai_calls(&["c"]), "additional_kwargs", json!({"function_call": {"name": "f"}}));
    for (reply, calls) in [(with(lc("ai", ""), "additional_kwargs", nameless), 2), (both, 1)] {
        let turns = turns("langchain", &[lc("human", "x"), reply]);
        let named = turns.left.iter().filter(|left| matches!(left.1, Why::Call)).count();
        assert_eq!(named, calls, "{:?}", turns.left);
    }
}

#[test]
fn roles_names_and_the_facts_of_a_reply_are_kept() {
    let metadata = json!({"model_name": "m", "finish_reason": "stop", "token_usage": {"total_tokens": 3}});
    let turns = turns(
        "langchain",
        &[
            with(lc("system", "S"), "additional_kwargs", json!({"__openai_role__": "developer"})),
            with(lc("chat", "hi"), "role", "Human".into()),
            with(with(lc("ai", "ho"), "response_metadata", metadata), "name", "bob".into()),
            with(lc("human", "f?"), "name", "ada".into()),
            with(
                lc("ai", ""),
                "additional_kwargs",
                json!({"function_call": {"name": "f", "arguments": "{}"}}),
            ),
            with(lc("function", "1"), "name", "f".into()),
            with(
                lc("ai", ""),
                "additional_kwargs",
                json!({"refusal": "No.", "audio": {"id": "a", "data": "x"}}),
            ),
        ],
    );
    let first = turns.turns[0].turn().unwrap();
    assert!(first.instructions().all(|message| message.raw().starts_with(b"{\"role\":\"developer\"")));
    assert_eq!((first.model(), first.finish_reason()), (Some("m"), Some("stop")));
    assert_eq!(first.usage().unwrap().get(), "{\"total_tokens\":3}");
    let all = all(&turns);
    assert_eq!(all[0][1], json!({"role": "assistant", "name": "bob", "content": "ho"}));
    assert_eq!(all[1][0]["name"], "ada");
    assert_eq!(all[1][1]["function_call"]["name"], "f");
    assert_eq!(all[2][0], json!({"role": "function", "name": "f", "content": "1"}));
    assert_eq!(
        all[2][1],
        json!({"role": "assistant", "content": null, "refusal": "No.", "audio": {"id": "a"}})
    );
}

#[test]
fn parts_of_every_dialect_become_those_of_chat_completions() {
    let image = |url: &str| json!({"type": "image_url", "image_url": {"url": url}});
    let cases = [
        (json!("text"), json!({"type": "text", "text": "text"})),
        (
            json!({"type": "text", "text": "t", "index": 0, "annotations": []}),
            json!({"type": "text", "text": "t"}),
        ),
        (json!({"type": "image_url", "image_url": "u"}), image("u")),
        (
            json!({"type": "image_url", "image_url": {"url": "u", "detail": "low"}}),
            json!({"type": "image_url", "image_url": {"url": "u", "detail": "low"}}),
        ),
        (
            json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}}),
            image("data:image/png;base64,AA"),
        ),
        (json!({"type": "image", "source": {"type": "url", "url": "u"}}), image("u")),
        (
            json!({"type": "image", "source_type": "base64", "mime_type": "image/png", "data": "AA"}),
            image("data:image/png;base64,AA"),
        ),
        (
            json!({"type": "image", "base64": "AA", "mime_type": "image/png"}),
            image("data:image/png;base64,AA"),
        ),
        (json!({"type": "image", "url": "u"}), image("u")),
        (
            json!({"type": "input_image", "image_url": "u", "detail": "auto"}),
            json!({"type": "image_url", "image_url": {"url": "u", "detail": "auto"}}),
        ),
        (
            json!({"type": "audio", "base64": "AA", "mime_type": "audio/mpeg"}),
            json!({"type": "input_audio", "input_audio": {"data": "AA", "format": "mp3"}}),
        ),
        (json!({"type": "input_file", "file_id": "f"}), json!({"type": "file", "file": {"file_id": "f"}})),
        (
            json!({"type": "file", "base64": "AA", "mime_type": "application/pdf", "filename": "a.pdf"}),
            json!({"type": "file", "file": {"file_data": "data:application/pdf;base64,AA", "filename": "a.pdf"}}),
        ),
    ];
    for (part, expected) in cases {
        let turns = turns("langchain", &[lc("human", json!([part])), lc("ai", "ok")]);
        assert_eq!(all(&turns)[0][0]["content"], json!([expected]), "{part}");
        assert!(turns.left.is_empty(), "{part}: {:?}", turns.left);
    }
    let strange = [json!({"type": "video", "url": "u"}), json!(7), json!({"text": "no type"})];
    let turns = turns("langchain", &[lc("human", strange.to_vec()), lc("ai", "ok")]);
    assert_eq!(turns.left.len(), 3, "each is named: {:?}", turns.left);
    assert_eq!(turns.turns.len(), 1, "and the rest is imported");
}

#[test]
fn calls_in_anthropics_content_are_calls() {
    let content = json!([{"type": "text", "text": "I look."}, {"type": "thinking", "thinking": "x"},
        {"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}}]);
    for message in [with(ai_calls(&["c"]), "content", content.clone()), lc("ai", content)] {
        let turns = turns("langchain", &[lc("human", "x"), message, tool("c"), lc("ai", "done")]);
        let reply = &all(&turns)[0][1];
        assert_eq!(reply["content"], "I look.");
        assert_eq!(reply["tool_calls"].as_array().unwrap().len(), 1, "once: {reply}");
        assert_eq!(turns.left, [(1, Why::Reasoning)]);
        assert_eq!(turns.turns.len(), 2);
    }
}

#[test]
fn a_broken_message_costs_itself_and_not_the_rest() {
    let mut source =
        entries(&[lc("human", "one"), lc("ai", "first"), lc("human", "two"), lc("ai", "second")]);
    let odd: [&[u8]; 6] =
        [b"", b"{", b"\xff\xfe", b"null", br#"{"type":"ai"}"#, br#"{"type":"unheard of","data":{}}"#];
    for json in odd {
        source.insert(2, Entry { json: json.to_vec(), at: None });
    }
    let said = langchain::read_all(&source);
    assert_eq!(said.left.len(), odd.len());
    let turns = build("langchain", &key(), &source, said.pieces).unwrap();
    assert_eq!(turns.turns.len(), 2);
}

#[test]
fn text_that_is_no_unicode_keeps_its_bytes() {
    let json = br#"{"type":"human","data":{"content":"cut \ud83d","type":"human"}}"#;
    let source = [Entry { json: json.to_vec(), at: None }, entries(&[lc("ai", "ok")]).remove(0)];
    let turns = build("langchain", &key(), &source, langchain::read_all(&source).pieces).unwrap();
    assert!(
        turns.turns[0].turn().unwrap().item_bytes().starts_with(br#"{"role":"user","content":"cut \ud83d"}"#)
    );
}

#[test]
fn what_no_provider_takes_back_is_left_out_and_named() {
    let turns = turns(
        "langchain",
        &[
            tool("nobody"),
            lc("human", "1"),
            ai_calls(&["a", "b"]),
            tool("a"),
            tool("a"),
            lc("human", "2"),
            lc("ai", ""),
            json!({"type": "remove", "data": {"content": "", "id": "x", "type": "remove"}}),
            lc("ai", "done"),
        ],
    );
    let left: Vec<_> = turns.left.iter().map(|(at, why)| (*at, why.clone())).collect();
    for expected in
        [(0, Why::Orphan), (4, Why::Orphan), (3, Why::Partial), (6, Why::Empty), (7, Why::Removal)]
    {
        assert!(left.contains(&expected), "{expected:?} is not in {left:?}");
    }
    let log: Log = turns.turns.iter().cloned().collect();
    let path = log.path();
    let sent = valid(&path, &[]);
    assert_eq!(sent.len(), 1, "the call that was answered in part is not sent, and what follows is");
}

fn responses() -> Vec<Value> {
    vec![
        json!({"role": "developer", "content": "Be brief."}),
        json!({"role": "user", "content": [{"type": "input_text", "text": "Look."}]}),
        json!({"type": "reasoning", "id": "rs", "summary": []}),
        json!({"type": "message", "id": "m", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": "I ask.", "annotations": []}]}),
        json!({"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}", "id": "fc"}),
        json!({"type": "custom_tool_call", "call_id": "2", "name": "g", "input": "raw"}),
        json!({"type": "function_call_output", "call_id": "1", "output": "one"}),
        json!({"type": "custom_tool_call_output", "call_id": "2", "output": [{"type": "input_text", "text": "two"}]}),
        json!({"type": "web_search_call", "id": "ws", "status": "completed"}),
        json!({"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}),
    ]
}

#[test]
fn the_items_of_one_reply_become_one_message() {
    let turns = turns("agents", &responses());
    assert_eq!(
        all(&turns),
        [
            vec![
                json!({"role": "user", "content": [{"type": "text", "text": "Look."}]}),
                json!({"role": "assistant", "content": "I ask.", "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                    {"id": "2", "type": "custom", "custom": {"name": "g", "input": "raw"}}]}),
            ],
            vec![
                json!({"role": "tool", "tool_call_id": "1", "content": "one"}),
                json!({"role": "tool", "tool_call_id": "2", "content": "two"}),
                json!({"role": "assistant", "content": null, "refusal": "No."}),
            ],
        ]
    );
    assert_eq!(turns.left, [(2, Why::Reasoning), (8, Why::Kind("web_search_call".to_owned()))]);
}

#[test]
fn a_text_between_a_call_and_its_result_stays_with_the_call() {
    let mut items = responses();
    items.swap(3, 4);
    let turns = turns("agents", &items);
    assert_eq!(turns.turns.len(), 2);
    assert_eq!(turns.turns[1].turn().unwrap().len(), 3, "both results are there");
}

#[test]
fn an_encrypted_session_is_recognised() {
    let item = json!({"__enc__": 1, "v": 1, "kid": "hkdf-v1", "payload": "gAAAA"});
    assert!(agents::are_encrypted(&entries(&[json!({"role": "user", "content": "x"}), item])));
    assert!(!agents::are_encrypted(&entries(&responses())));
}

#[test]
fn the_same_beginning_gives_the_same_turns_and_anything_else_others() {
    let ids = |kind, json: &[Value]| turns(kind, json).turns.iter().map(Record::id).collect::<Vec<_>>();
    let long = [lc("human", "1"), lc("ai", "a"), lc("human", "2"), lc("ai", "b")];
    assert_eq!(ids("langchain", &long)[..1], ids("langchain", &long[..2]));
    assert_eq!(ids("langchain", &long)[..1], ids("langchain", &long[..3]));
    let other = [lc("human", "1"), lc("ai", "a"), lc("human", "9"), lc("ai", "b")];
    assert_eq!(ids("langchain", &long)[0], ids("langchain", &other)[0]);
    assert_ne!(ids("langchain", &long)[1], ids("langchain", &other)[1]);
    let twice = [lc("human", "1"), lc("ai", "a"), lc("human", "1"), lc("ai", "a")];
    let twice = ids("langchain", &twice);
    assert_ne!(twice[0], twice[1], "what is said twice is two turns");
    assert!(twice[0] < twice[1], "ids sort as the turns do");
    assert_eq!(twice[0].as_bytes()[6] >> 4, 7, "they are UUIDs of version 7");
}
