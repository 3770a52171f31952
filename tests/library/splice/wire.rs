//! The splice cases of `fixtures/wire.json`: what goes upstream, byte for byte.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::Deserialize;
use tower_session_memory::protocol::{Insertion, Protocol, openai_chat::OpenAiChat};

#[derive(Deserialize)]
struct Case {
    id: String,
    #[serde(default)]
    stored_history: Vec<String>,
    #[serde(default)]
    request_b64: String,
    expect: serde_json::Value,
}

#[test]
fn every_splice_case_goes_upstream_byte_for_byte() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../../fixtures/wire.json")).unwrap();
    let cases: Vec<_> = cases.into_iter().filter(|case| case.id.starts_with('Q')).collect();
    assert_eq!(cases.len(), 11, "the fixtures have eleven splice cases");
    let chat = OpenAiChat::new();
    for case in cases {
        let body = Bytes::from(BASE64_STANDARD.decode(&case.request_b64).unwrap());
        let history: Vec<Bytes> = case.stored_history.iter().cloned().map(Bytes::from).collect();
        let (outcome, sent) = match chat.read(&body) {
            Ok(draft) => {
                let mut insertion = Insertion::default();
                insertion.history = &history;
                ("ok", chat.edit(&draft, &insertion).concat())
            }
            Err(_) => ("bypass", body.to_vec()),
        };
        assert_eq!(case.expect["outcome"], outcome, "{}", case.id);
        let expected = BASE64_STANDARD.decode(case.expect["request_b64"].as_str().unwrap()).unwrap();
        assert_eq!(String::from_utf8_lossy(&sent), String::from_utf8_lossy(&expected), "{}", case.id);
    }
}
