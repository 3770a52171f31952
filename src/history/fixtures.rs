//! Messages and turns for the tests of this module. The format is a toy: content only.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::time::SystemTime;

use bytes::Bytes;

use super::{About, Canonical, Message, Parent, Record, RecordId, Role, TurnParts, TurnState};
use crate::session::{Principal, SessionKey};

#[derive(Clone, Copy)]
pub(super) enum Said<'a> {
    System(&'a str),
    User(&'a str),
    Assistant(&'a str),
    Calls(&'a [&'a str]),
    Result(&'a str),
}

impl Said<'_> {
    pub(super) fn message(self) -> Message {
        let (role, text, calls, answers) = match self {
            Self::System(text) => (Role::System, text.to_owned(), &[][..], None),
            Self::User(text) => (Role::User, text.to_owned(), &[][..], None),
            Self::Assistant(text) => (Role::Assistant, text.to_owned(), &[][..], None),
            Self::Calls(ids) => (Role::Assistant, ids.join("+"), ids, None),
            Self::Result(id) => (Role::Tool, id.to_owned(), &[][..], Some(id.to_owned())),
        };
        let raw = format!(r#"{{"{role:?}":"{text}"}}"#);
        let calls = calls.iter().map(ToString::to_string).collect();
        Message::new(Bytes::from(raw), About { role, calls, answers })
    }
}

pub(super) fn user(text: &str) -> Message {
    Said::User(text).message()
}

pub(super) fn assistant(text: &str) -> Message {
    Said::Assistant(text).message()
}

pub(super) fn calls(ids: &[&str]) -> Message {
    Said::Calls(ids).message()
}

pub(super) fn result(id: &str) -> Message {
    Said::Result(id).message()
}

/// The same message, serialised in another way.
pub(super) fn respaced(message: &Message) -> Message {
    let raw = [b" ", &message.raw()[..]].concat();
    Message::new(Bytes::from(raw), message.about().clone())
}

/// Says that [`respaced`] messages are the same.
pub(super) fn canonical(message: &Message) -> Canonical {
    let mut digest = [0; 16];
    for (at, byte) in message.raw().trim_ascii().iter().enumerate() {
        digest[at % 16] ^= byte.rotate_left(u32::try_from(at / 16).unwrap());
    }
    Canonical(digest)
}

pub(super) fn turn(parent: Parent, sent: &[Message], reply: Message) -> Record {
    build(&[], parent, sent, reply, TurnState::Complete)
}

pub(super) fn turn_with(instructions: &str, parent: Parent, sent: &[Message], reply: Message) -> Record {
    build(&[Said::System(instructions).message()], parent, sent, reply, TurnState::Complete)
}

pub(super) fn interrupted(sent: &[Message], reply: Message) -> Record {
    build(&[], Parent::Previous, sent, reply, TurnState::Interrupted)
}

fn build(
    instructions: &[Message],
    parent: Parent,
    sent: &[Message],
    reply: Message,
    state: TurnState,
) -> Record {
    TurnParts {
        id: RecordId::new(),
        parent,
        at: SystemTime::UNIX_EPOCH,
        instructions: instructions.to_vec(),
        sent: sent.to_vec(),
        reply,
        state,
        finish_reason: None,
        model: None,
        usage: None,
    }
    .into_record(&SessionKey::new("test", Principal::anonymous(), "s".parse().unwrap()))
}
