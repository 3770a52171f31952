#![expect(clippy::unwrap_used, reason = "a test may panic")]

use super::*;
use crate::protocol::openai_chat::budget::Budget;

fn read_str(body: &str) -> Result<Draft, Uneditable> {
    read(&Bytes::copy_from_slice(body.as_bytes()))
}

#[test]
fn messages_are_slices_of_the_body() {
    let body = Bytes::from_static(
        br#" {"a":[{"messages":0}],"mess\u0061ges" : [ {"role":"user"} , {"role":"x y"}]} "#,
    );
    let draft = read(&body).unwrap();
    assert_eq!(draft.items.len(), 2);
    assert_eq!(draft.items[0].raw(), &br#"{"role":"user"}"#[..]);
    assert_eq!(draft.items[1].author(), Author::Other);
    assert_eq!(&body[draft.insert_at..][..15], br#"{"role":"user"}"#);
    assert_eq!(draft.items[0].raw().as_ptr(), body[draft.insert_at..].as_ptr(), "nothing was copied");
}

#[test]
fn what_parsers_disagree_on_or_nobody_understands_is_not_edited() {
    let user = r#"{"role":"user","content":"x"}"#;
    let cases = [
        ("".to_owned(), OpenAiChat::NOT_JSON),
        ("{".to_owned(), OpenAiChat::NOT_JSON),
        (format!("\u{feff}{{\"messages\":[{user}]}}"), OpenAiChat::NOT_JSON),
        (format!(r#"{{"messages":[{user}]}} x"#), OpenAiChat::NOT_JSON),
        (format!(r#"{{"messages":[{user}],}}"#), OpenAiChat::NOT_JSON),
        ("[1,".to_owned(), OpenAiChat::NOT_JSON),
        ("[]".to_owned(), OpenAiChat::NO_MESSAGES),
        ("null".to_owned(), OpenAiChat::NO_MESSAGES),
        (r#"{"input":"hello"}"#.to_owned(), OpenAiChat::NO_MESSAGES),
        (format!(r#"{{"messages":[{user}],"messag\u0065s":[{user}]}}"#), OpenAiChat::DUPLICATE_MESSAGES),
        (r#"{"messages":null,"messages":null}"#.to_owned(), OpenAiChat::DUPLICATE_MESSAGES),
        (r#"{"messages":null}"#.to_owned(), OpenAiChat::NOT_MESSAGES),
        (r#"{"messages":"hello"}"#.to_owned(), OpenAiChat::NOT_MESSAGES),
        (r#"{"messages":{"0":{"role":"user"}}}"#.to_owned(), OpenAiChat::NOT_MESSAGES),
        (format!(r#"{{"messages":[{user},"x"]}}"#), OpenAiChat::NOT_MESSAGES),
        (r#"{"messages":[{"content":"x"}]}"#.to_owned(), OpenAiChat::NOT_MESSAGES),
        (r#"{"messages":[{"role":null}]}"#.to_owned(), OpenAiChat::NOT_MESSAGES),
        (r#"{"messages":[{"role":"\ud800"}]}"#.to_owned(), OpenAiChat::NOT_MESSAGES),
        (r#"{"messages":[{"role":"user","r\u006fle":"system"}]}"#.to_owned(), OpenAiChat::NOT_MESSAGES),
        (
            r#"{"messages":[{"role":"user","content":"a","content":"b"}]}"#.to_owned(),
            OpenAiChat::NOT_MESSAGES,
        ),
        (
            r#"{"messages":[{"role":"tool","tool_call_id":"a","tool_call_id":"b"}]}"#.to_owned(),
            OpenAiChat::NOT_MESSAGES,
        ),
        (r#"{"messages":[ ]}"#.to_owned(), OpenAiChat::EMPTY_MESSAGES),
        (format!(r#"{{"messages":[{user},{{"role":"assistant"}}]}}"#), OpenAiChat::PREFILL),
        (format!(r#"{{"messages":[{user}],"conversation":{{"id":"c"}}}}"#), OpenAiChat::UPSTREAM_STATE),
        (r#"{"input":"x","previous_response_id":"r"}"#.to_owned(), OpenAiChat::UPSTREAM_STATE),
    ];
    for (body, reason) in cases {
        assert_eq!(read_str(&body).unwrap_err(), reason, "{body}");
    }
    assert_eq!(
        read(&Bytes::from_static(b"{\"messages\":[{\"role\":\"user\",\"x\":\"\xff\"}]}")).unwrap_err(),
        OpenAiChat::NOT_JSON
    );
}

#[test]
fn null_upstream_state_and_lone_surrogates_are_fine() {
    let body = r#"{"previous_response_id":null,"conversation":null,"\ud800":1e999,"messages":[{"role":"user","content":"\ud83d"}]}"#;
    assert_eq!(read_str(body).unwrap().items.len(), 1);
}

#[test]
fn a_million_levels_cost_no_stack() {
    let (open, close) = ("[".repeat(1_000_000), "]".repeat(1_000_000));
    let elsewhere = format!(r#"{{"x":{open}{close},"messages":[{{"role":"user","content":"x"}}]}}"#);
    assert_eq!(read_str(&elsewhere).unwrap().items.len(), 1);
    let inside = format!(r#"{{"messages":[{{"role":"user","content":{open}{close}}}]}}"#);
    assert_eq!(read_str(&inside).unwrap().items.len(), 1);
    assert_eq!(read_str(&format!(r#"{{"messages":{open}"#)).unwrap_err(), OpenAiChat::NOT_JSON);
    assert_eq!(read_str(&open).unwrap_err(), OpenAiChat::NOT_JSON);
}

#[test]
fn history_goes_after_the_leading_instructions_only() {
    let draft = read_str(
        r#"{"messages":[{"role":"system"},{"role":"developer"},{"role":"user"},{"role":"system"}]}"#,
    )
    .unwrap();
    assert_eq!(draft.instructions.len(), 2);
    assert!(draft.body[draft.insert_at..].starts_with(br#"{"role":"user"}"#));

    let draft = read_str(r#"{"messages":[{"role":"system"} ]}"#).unwrap();
    assert_eq!(draft.instructions.len(), 1);
    assert_eq!(&draft.body[draft.insert_at..], b" ]}");
}

#[test]
fn calls_and_answers_are_read_out() {
    let about = |json: &str| super::about(json).unwrap();
    let calls = r#"{"role":"assistant","tool_calls":[{"id":"a\u0062"},{"id":null},{},7,{"id":"\ud800"}]}"#;
    assert_eq!(about(calls).calls, ["ab", "", "", "", "\u{fffd}\u{fffd}\u{fffd}"]);
    assert_eq!(about(r#"{"role":"assistant","tool_calls":null,"function_call":null}"#).calls, [""; 0]);
    assert_eq!(about(r#"{"role":"assistant","function_call":{"name":"f"}}"#).calls, [""]);
    assert_eq!(about(r#"{"role":"user","tool_calls":[{"id":"a"}]}"#).calls, [""; 0]);
    assert_eq!(about(r#"{"role":"tool","tool_call_id":"a"}"#).answers, ["a"]);
    assert_eq!(about(r#"{"role":"tool"}"#).answers, [""]);
    assert_eq!(about(r#"{"role":"function","name":"f"}"#).answers, [""]);
    assert_eq!(about(r#"{"role":"user","tool_call_id":"a"}"#).answers, [""; 0]);
}

#[test]
fn a_body_of_more_messages_or_calls_than_a_conversation_has_is_left_alone() {
    let list = |element: &str, count: usize| vec![element; count].join(",");
    let body = |messages: &str| Bytes::from(format!("{{\"messages\":[{messages}]}}"));
    let user = r#"{"role":"user"}"#;
    assert!(read(&body(&list(user, MAX_MESSAGES))).is_ok());
    for too_many in [list(user, MAX_MESSAGES + 1), list("0", MAX_MESSAGES + 1)] {
        assert_eq!(read(&body(&too_many)).unwrap_err(), OpenAiChat::TOO_MANY_MESSAGES);
    }
    let calling = |calls: usize| format!(r#"{{"role":"assistant","tool_calls":[{}]}}"#, list("0", calls));
    assert!(read(&body(&format!("{},{user}", calling(Budget::ENTRIES)))).is_ok());
    assert_eq!(
        read(&body(&format!("{},{user}", calling(Budget::ENTRIES + 1)))).unwrap_err(),
        OpenAiChat::NOT_MESSAGES
    );
    let all = vec![calling(Budget::ENTRIES); MAX_MESSAGES / Budget::ENTRIES + 1].join(",");
    assert_eq!(read(&body(&format!("{all},{user}"))).unwrap_err(), OpenAiChat::TOO_MANY_MESSAGES);
}

#[test]
fn what_is_read_at_once_is_what_is_read_step_by_step() {
    use proptest::{collection::vec, prelude::*, sample::select};

    let message = select(vec![
        r#"{"role":"user"}"#,
        r#"{ "role" : "user" , "content" : "{\"}\u00e9" } "#,
        r#"{"x":[{"role":"}"}],"role":"syst\u0065m","y":{"z":"{"}}"#,
        r#"{"role":"assistant","tool_calls":[{"id":"a"},{}],"function_call":{}}"#,
        r#"{"tool_call_id":"b","role":"tool","x":null,"x":1e999}"#,
        r#"{"role":"user","role":"user"}"#,
        r#"{"r\u006fle":"user"}"#,
        r#"{"role":7}"#,
        "{}",
        "7",
        r#""{\n""#,
        r#"[{"role":"user"}]"#,
    ]);
    let other =
        select(vec!["", r#""a":[{"messages":0}],"#, r#""conversation":null,"#, r#""messages":[],"#, "x"]);
    let body = (other, vec(message, 0..5), select(vec![",", " , "])).prop_map(|(other, messages, comma)| {
        Bytes::from(format!(r#" {{ {other}"messages":[{}]}} "#, messages.join(comma)))
    });
    let read_at_once = |body: &Bytes| at_once::read(body, str::from_utf8(body).unwrap());
    proptest!(|(body in body)| {
        let places = |messages: &[Item]| messages.iter().map(|m| m.raw().as_ptr()).collect::<Vec<_>>();
        if let Some(at_once) = read_at_once(&body) {
            let step_by_step = step_by_step(&body, str::from_utf8(&body).unwrap());
            prop_assert_eq!(Ok(&at_once), step_by_step.as_ref());
            prop_assert_eq!(places(&at_once), places(&step_by_step.unwrap()));
        }
    });
    let usual =
        br#"{"model":"m","messages":[{"role":"system","content":"S"},{"role":"user","content":[{}]}],"n":1}"#;
    assert_eq!(read_at_once(&Bytes::from_static(usual)).unwrap().len(), 2);
}
