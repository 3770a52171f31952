//! Any chunking of any reply gives the same record, and no bytes make a recorder panic.

use proptest::{prelude::*, sample::select};
use tower_session_memory::protocol::{ReplyKind, ReplyLimits, Skip, openai_chat::OpenAiChat};

use super::recorded::{End, LIMITS, record};

/// A string's literal: text, escapes, halves of characters, pieces of JSON.
fn literal() -> impl Strategy<Value = String> {
    let piece = select(vec![
        "",
        "a",
        "é",
        "😀",
        "\\n",
        "\\u00e9",
        "\\ud83d",
        "\\ude00",
        "\\\\",
        "\\\"",
        "{",
        "}",
        "[",
        "{}",
        "\\\"a\\\":",
        " ",
    ]);
    prop::collection::vec(piece, 0..5).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        literal(),
        select(vec!["null", "0", "1", "-1e999", "0.10", "true", "{}", "[]"]).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let names = select(vec!["type", "text", "thinking", "index", "id", "name", "a", "\\u0061"]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(" , "))),
            prop::collection::vec((names, inner), 0..4).prop_map(|members| object(&members)),
        ]
    })
}

fn object(members: &[(&str, String)]) -> String {
    let members: Vec<_> = members.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
    format!("{{{}}}", members.join(","))
}

/// Some members of an object that is mostly shaped as it should be.
fn shaped(names: Vec<(&'static str, BoxedStrategy<String>)>) -> BoxedStrategy<String> {
    let members: Vec<_> = names
        .into_iter()
        .map(|(name, usual)| {
            prop::option::weighted(0.7, prop_oneof![60 => usual, 1 => value().boxed()])
                .prop_map(move |value| value.map(|value| (name, value)))
        })
        .collect();
    members.prop_map(|members| object(&members.into_iter().flatten().collect::<Vec<_>>())).boxed()
}

fn list(of: BoxedStrategy<String>) -> BoxedStrategy<String> {
    prop::collection::vec(of, 0..3).prop_map(|items| format!("[{}]", items.join(","))).boxed()
}

fn one_of(values: &[&'static str]) -> BoxedStrategy<String> {
    select(values.to_vec()).prop_map(str::to_owned).boxed()
}

fn delta() -> BoxedStrategy<String> {
    let names = ["\"f\"", "\"fg\"", "\"g\"", "\"\"", "null"];
    let function =
        shaped(vec![("name", one_of(&names)), ("arguments", literal().boxed()), ("x", value().boxed())]);
    let custom = shaped(vec![("name", one_of(&names)), ("input", literal().boxed())]);
    let call = shaped(vec![
        ("index", one_of(&["0", "1", "null", "\"1\""])),
        ("id", one_of(&["\"a\"", "\"b\"", "\"\"", "null", "1"])),
        ("type", one_of(&["\"function\"", "\"custom\"", "null"])),
        ("function", function.clone()),
        ("custom", prop_oneof![9 => Just("null".to_owned()), 1 => custom].boxed()),
        ("extra_content", value().boxed()),
    ]);
    let part = shaped(vec![
        ("type", one_of(&["\"text\"", "\"thinking\"", "\"image_url\""])),
        ("text", literal().boxed()),
        ("thinking", prop_oneof![literal(), value()].boxed()),
    ]);
    let detail = shaped(vec![
        ("index", one_of(&["0", "1"])),
        ("type", one_of(&["\"a\"", "\"b\""])),
        ("text", literal().boxed()),
        ("data", value().boxed()),
    ]);
    shaped(vec![
        ("role", one_of(&["\"assistant\"", "\"\"", "null"])),
        ("content", prop_oneof![3 => literal().boxed(), 1 => list(part)].boxed()),
        ("reasoning", literal().boxed()),
        ("refusal", prop_oneof![3 => Just("null".to_owned()), 1 => literal()].boxed()),
        ("reasoning_details", list(detail)),
        ("function_call", prop_oneof![3 => Just("null".to_owned()), 1 => function].boxed()),
        ("audio", one_of(&["null", "{\"id\":\"x\",\"data\":\"AA\"}", "{\"data\":\"BB\"}"])),
        ("tool_calls", list(call)),
        ("annotations", value().boxed()),
        ("note", value().boxed()),
    ])
}

fn choice(named: &'static str) -> BoxedStrategy<String> {
    let finish = prop_oneof![
        10 => Just("\"stop\"".to_owned()),
        4 => one_of(&["null", "\"length\"", "\"\""]),
        1 => Just("\"error\"".to_owned()),
    ];
    shaped(vec![
        ("index", one_of(&["0", "0", "0", "1", "null"])),
        (named, delta()),
        ("finish_reason", finish.boxed()),
    ])
}

fn reply(named: &'static str) -> BoxedStrategy<String> {
    shaped(vec![
        ("model", literal().boxed()),
        ("choices", list(choice(named))),
        ("usage", value().boxed()),
        ("error", prop_oneof![20 => Just("null".to_owned()), 1 => value()].boxed()),
    ])
}

/// A stream of chunks among everything else that streams hold.
fn stream() -> impl Strategy<Value = String> {
    let frame = prop_oneof![
        40 => reply("delta").prop_map(|chunk| format!("data: {chunk}")),
        5 => Just(r#"data:{"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}]}"#.to_owned()),
        2 => one_of(&[": ping", "event: ping", "id: 1", "data:", "data: 1", "\u{feff}data: 2", "odd"]),
        1 => one_of(&["data: [DONE]", "data:[DONE]  ", "error: 1", "event: error", "data: {", "data: }"]),
    ];
    (
        prop::collection::vec((frame, one_of(&["\n\n", "\r\n\r\n", "\r\r", "\n\n", "\n\n"])), 0..8),
        any::<bool>(),
    )
        .prop_map(|(frames, done)| {
            let body: String = frames.into_iter().map(|(frame, end)| frame + &end).collect();
            if done { body + "data: [DONE]\n\n" } else { body }
        })
}

fn check(kind: ReplyKind, bytes: &[u8], sizes: &[usize]) -> Result<(), TestCaseError> {
    let mut chunks = Vec::new();
    let mut rest = bytes;
    for &size in sizes.iter().cycle() {
        let (chunk, tail) = rest.split_at(size.min(rest.len()));
        chunks.push(chunk);
        rest = tail;
        if rest.is_empty() {
            break;
        }
    }
    let small = ReplyLimits::new(64, 256);
    for (limits, end) in [(LIMITS, End::OfBody), (LIMITS, End::ClientLeft), (small, End::OfBody)] {
        let whole = record(&OpenAiChat::default(), kind, limits, end, &[bytes]);
        let pieces = record(&OpenAiChat::default(), kind, limits, end, &chunks);
        prop_assert_eq!(&pieces.outcome, &whole.outcome);
        prop_assert_eq!(pieces.finished, whole.finished);
        prop_assert_eq!(pieces.terminal.is_some(), whole.terminal.is_some());
        if whole.outcome.is_ok() {
            let _: &serde_json::value::RawValue = serde_json::from_str(whole.raw()).expect("it is JSON");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_chunking_of_any_stream_gives_the_same_record(
        body in stream(),
        sizes in prop::collection::vec(1usize..40, 1..20),
    ) {
        check(ReplyKind::EventStream, body.as_bytes(), &sizes)?;
    }

    #[test]
    fn any_chunking_of_any_json_reply_gives_the_same_record(
        body in reply("message"),
        tail in select(vec!["", "\n", "}", "{\"error\":1}"]),
        sizes in prop::collection::vec(1usize..40, 1..20),
    ) {
        check(ReplyKind::Json, (body + tail).as_bytes(), &sizes)?;
    }

    #[test]
    fn garbage_never_panics(
        noise in prop::collection::vec(any::<u8>(), 0..200),
        at in 0usize..400,
        body in prop_oneof![stream().boxed(), reply("message")],
        sizes in prop::collection::vec(1usize..40, 1..20),
    ) {
        let mut bytes = body.into_bytes();
        let at = at.min(bytes.len());
        bytes.splice(at..(at + noise.len() / 2).min(bytes.len()), noise.iter().copied());
        check(ReplyKind::EventStream, &bytes, &sizes)?;
        check(ReplyKind::Json, &bytes, &sizes)?;
    }

    #[test]
    fn the_text_is_the_sum_of_its_deltas_even_if_they_cut_characters(
        text in any::<String>(),
        sizes in prop::collection::vec(1usize..5, 1..10),
        escape in any::<bool>(),
    ) {
        let mut deltas: Vec<String> = Vec::new();
        if escape {
            let units: Vec<u16> = text.encode_utf16().collect();
            let mut rest = &units[..];
            for &size in sizes.iter().cycle() {
                let (head, tail) = rest.split_at(size.min(rest.len()));
                deltas.push(head.iter().map(|unit| format!("\\u{unit:04x}")).collect());
                rest = tail;
                if rest.is_empty() {
                    break;
                }
            }
        } else {
            let literals = text.chars().map(|c| serde_json::to_string(&c).unwrap());
            deltas.extend(literals.map(|literal| literal[1..literal.len() - 1].to_owned()));
        }
        let body: String = deltas
            .iter()
            .map(|delta| format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{delta}\"}}}}]}}\n\n"))
            .collect();
        let body = body + "data: {\"choices\":[{\"finish_reason\":\"stop\"}]}\n\n";
        let protocol = OpenAiChat::default();
        let recorded = record(&protocol, ReplyKind::EventStream, LIMITS, End::OfBody, &[body.as_bytes()]);
        if text.is_empty() {
            prop_assert_eq!(recorded.skip(), Skip::EmptyMessage);
        } else {
            let message = recorded.message();
            prop_assert_eq!(message["content"].as_str(), Some(&*text));
        }
    }
}
