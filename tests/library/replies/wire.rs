//! Every recorded reply of `fixtures/wire.json`, whatever way its bytes arrive.

use std::io::Read;

use base64::{Engine, prelude::BASE64_STANDARD};
use flate2::read::GzDecoder;
use serde::Deserialize;
use serde_json::Value;
use tower_session_memory::protocol::{ReplyKind, openai_chat::OpenAiChat};

use super::recorded::{End, record_every_way};

#[derive(Deserialize)]
struct Case {
    id: String,
    api: String,
    title: String,
    body: Option<String>,
    body_b64: Option<String>,
    #[serde(default)]
    response_headers: Vec<(String, String)>,
    expect: Value,
}

impl Case {
    /// The reply as a recorder gets it: a layer that must record a compressed reply decodes a copy of it.
    fn bytes(&self) -> Vec<u8> {
        let bytes = match (&self.body, &self.body_b64) {
            (Some(body), _) => body.clone().into_bytes(),
            (None, Some(body)) => BASE64_STANDARD.decode(body).unwrap(),
            (None, None) => panic!("{} has no body", self.id),
        };
        let gzip =
            self.response_headers.iter().any(|(name, value)| name == "Content-Encoding" && value == "gzip");
        if !gzip {
            return bytes;
        }
        let mut decoded = Vec::new();
        GzDecoder::new(&bytes[..]).read_to_end(&mut decoded).unwrap();
        decoded
    }
}

fn check(prefix: char, kind: ReplyKind) -> usize {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../../fixtures/wire.json")).unwrap();
    let cases = cases.iter().filter(|case| case.id.starts_with(prefix));
    let checked = cases.map(|case| {
        let Case { id, title, expect, .. } = case;
        let recorded = record_every_way(&OpenAiChat::default(), kind, End::OfBody, &case.bytes());
        match expect["outcome"].as_str().unwrap() {
            "commit" => {
                assert!(recorded.outcome.is_ok(), "{id} ({title}) is recorded: {:?}", recorded.outcome);
                assert_eq!(recorded.message(), expect["message"], "{id}: {title}");
                assert!(recorded.finished, "{id}: {title}");
            }
            "skip" => assert_eq!(recorded.skip().as_str(), expect["reason"], "{id}: {title}"),
            other => panic!("{id} expects {other}"),
        }
        assert!(case.api.starts_with("chat.completions"), "{id} is of this protocol");
    });
    checked.count()
}

#[test]
fn every_stream_of_the_field_gives_its_record_however_it_is_cut() {
    assert_eq!(check('S', ReplyKind::EventStream), 49);
}

#[test]
fn every_json_reply_of_the_field_gives_its_record_however_it_is_cut() {
    assert_eq!(check('J', ReplyKind::Json), 12);
}
