//! Conversations of messages of 200 bytes of text.

use bytes::Bytes;
use tower_session_memory::{
    history::{ClientCase, Format, Item, Log, Record, TurnParts},
    protocol::{Protocol, openai_chat::OpenAiChat},
    session::{Principal, SessionKey},
};

/// The format of all items.
const FORMAT: Format = Format::from_static("openai.chat");

/// Bytes of text in each message.
const TEXT: usize = 200;

pub(crate) fn message(role: &str) -> String {
    let text = "Some text. ".repeat(TEXT / 11 + 1);
    format!(r#"{{"role":"{role}","content":"{}"}}"#, &text[..TEXT])
}

/// A request of these messages.
pub(crate) fn body(messages: &[String]) -> Bytes {
    format!(r#"{{"model":"m","stream":true,"messages":[{}]}}"#, messages.join(",")).into()
}

pub(crate) fn delta() -> Bytes {
    body(&[message("user")])
}

/// Messages of the given number of turns.
pub(crate) fn exchanges(turns: usize) -> Vec<String> {
    std::iter::repeat_n([message("user"), message("assistant")], turns).flatten().collect()
}

pub(crate) fn key() -> SessionKey {
    SessionKey::new("bench", Principal::anonymous(), "session".parse().unwrap())
}

pub(crate) fn log(turns: usize) -> Log {
    self::turns(turns).into_iter().collect()
}

pub(crate) fn turns(turns: usize) -> Vec<Record> {
    let (key, messages) = (key(), said());
    (0..turns).map(|_| parts(&messages).into_record(&key)).collect()
}

/// What the client says in a turn, and the reply.
pub(crate) fn said() -> Vec<Item> {
    let exchange = body(&[message("user"), message("assistant"), message("user")]);
    OpenAiChat::new().read(&exchange).unwrap().items
}

pub(crate) fn parts(said: &[Item]) -> TurnParts {
    let mut parts = TurnParts::new(FORMAT, said[..1].to_vec(), said[1..2].to_vec());
    parts.client = Some(ClientCase::Delta);
    parts.finish_reason = Some("stop".to_owned());
    parts.model = Some("gpt-5-2026-01-01".to_owned());
    parts
}
