//! For random JSON bodies, splicing is the same as parsing, inserting and comparing; and not a byte of the
//! client's is touched.

use bytes::Bytes;
use proptest::{prelude::*, sample::Index};
use serde_json::{Map, Value, json};
use tower_session_memory::protocol::{Insertion, Protocol, openai_chat::OpenAiChat};

/// JSON text with the whitespace of `blanks`, taken in turn.
fn print(value: &Value, blanks: &mut impl Iterator<Item = &'static str>) -> String {
    let mut blank = || blanks.next().unwrap_or("");
    let (before, after) = (blank(), blank());
    let text = match value {
        Value::Array(elements) => {
            let elements: Vec<_> = elements.iter().map(|element| print(element, blanks)).collect();
            format!("[{}]", elements.join(","))
        }
        Value::Object(members) => {
            let members: Vec<_> = members
                .iter()
                .map(|(key, value)| format!("{}:{}", print(&json!(key), blanks), print(value, blanks)))
                .collect();
            format!("{{{}}}", members.join(","))
        }
        scalar => scalar.to_string(),
    };
    format!("{before}{text}{after}")
}

fn value() -> impl Strategy<Value = Value> {
    let text = prop_oneof!["[a-z]{0,6}", Just("messages".to_owned()), Just("]}\"\\,[{".to_owned()), ".{0,8}"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(text.clone(), inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn message(roles: &'static [&'static str]) -> impl Strategy<Value = Value> {
    (prop::sample::select(roles), value(), value())
        .prop_map(|(role, content, other)| json!({"x": other, "role": role, "content": content}))
}

fn body() -> impl Strategy<Value = (Map<String, Value>, Index, Vec<Value>)> {
    let instructions = prop::collection::vec(message(&["system", "developer"]), 0..3);
    let rest = prop::collection::vec(message(&["user", "tool", "system", "critic"]), 0..3);
    let messages = (instructions, rest)
        .prop_map(|(instructions, rest)| [instructions, rest].concat())
        .prop_filter("a body without messages is not edited", |messages| !messages.is_empty());
    (prop::collection::btree_map("[a-z]{1,3}", value(), 0..4), any::<Index>(), messages)
        .prop_map(|(members, at, messages)| (members.into_iter().collect(), at, messages))
}

/// The members with `messages` among them.
fn with_messages(members: &Map<String, Value>, at: Index, messages: Vec<Value>) -> Vec<(String, Value)> {
    let mut all: Vec<_> = members.clone().into_iter().collect();
    all.insert(at.index(all.len() + 1), ("messages".to_owned(), Value::from(messages)));
    all
}

proptest! {
    #[test]
    fn a_splice_is_an_insertion_and_leaves_every_other_byte(
        (members, at, messages) in body(),
        history in prop::collection::vec(message(&["user", "assistant"]), 0..4),
        blanks in prop::collection::vec(prop::sample::select(&["", " ", "\n\t", "\r\n "][..]), 1..20),
    ) {
        let mut blanks = blanks.iter().copied().cycle();
        let printed: Vec<_> = with_messages(&members, at, messages.clone())
            .iter()
            .map(|(key, value)| format!("{}:{}", print(&json!(key), &mut blanks), print(value, &mut blanks)))
            .collect();
        let body = Bytes::from(format!("{{{}}}", printed.join(",")));
        let history_bytes: Vec<Bytes> = history.iter().map(|m| print(m, &mut blanks).trim().to_owned().into()).collect();

        let draft = OpenAiChat::new().read(&body).unwrap();
        let mut insertion = Insertion::default();
        insertion.history = &history_bytes;
        let pieces = OpenAiChat::new().edit(&draft, &insertion);
        let spliced = pieces.concat();

        let leading = messages.iter().take_while(|m| matches!(m["role"].as_str(), Some("system" | "developer"))).count();
        let mut expected = messages;
        expected.splice(leading..leading, history);
        let oracle = Value::Object(with_messages(&members, at, expected).into_iter().collect());
        prop_assert_eq!(serde_json::from_slice::<Value>(&spliced).unwrap(), oracle);

        let inserted = spliced.len() - body.len();
        prop_assert_eq!(&spliced[..draft.insert_at], &body[..draft.insert_at]);
        prop_assert_eq!(&spliced[draft.insert_at + inserted..], &body[draft.insert_at..]);
        let commas = history_bytes.len();
        prop_assert_eq!(inserted, history_bytes.iter().map(Bytes::len).sum::<usize>() + commas);
        prop_assert_eq!(pieces[0].as_ptr(), body.as_ptr(), "nothing is copied");
    }

    #[test]
    fn any_bytes_are_read_or_refused_and_what_is_read_is_in_the_body(body in prop::collection::vec(any::<u8>(), 0..200)) {
        check_slices(&Bytes::from(body))?;
    }

    #[test]
    fn near_misses_are_read_or_refused(body in r#"\{("messages":\[(\{"role":"(user|assistant)"\},?){0,3}\],?|"a":[\[\{]{0,3}|"m\\u0065ssages":\[\],?){0,3}\}"#) {
        check_slices(&Bytes::from(body))?;
    }
}

fn check_slices(body: &Bytes) -> Result<(), TestCaseError> {
    let Ok(draft) = OpenAiChat::new().read(body) else { return Ok(()) };
    prop_assert!(serde_json::from_slice::<Value>(body).is_ok(), "what is read is JSON");
    for message in draft.instructions.iter().chain(&draft.items) {
        let offset = message.raw().as_ptr().addr() - body.as_ptr().addr();
        prop_assert_eq!(&body[offset..offset + message.raw().len()], message.raw());
    }
    Ok(())
}
