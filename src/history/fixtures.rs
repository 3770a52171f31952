//! Items and turns for the tests of this module. The format is a toy: content only.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use bytes::Bytes;

use super::{About, Author, Canonical, Format, Item, Parent, Record, RecordId, TurnParts, TurnState};
use crate::session::{Principal, SessionKey};

#[derive(Clone, Copy)]
pub(crate) enum Said<'a> {
    System(&'a str),
    User(&'a str),
    Assistant(&'a str),
    Calls(&'a [&'a str]),
    Result(&'a str),
}

impl Said<'_> {
    pub(crate) fn item(self) -> Item {
        let (name, about, text) = match self {
            Self::System(text) => ("System", About::new(Author::Instruction), text.to_owned()),
            Self::User(text) => ("User", About::new(Author::User), text.to_owned()),
            Self::Assistant(text) => ("Assistant", About::new(Author::Model), text.to_owned()),
            Self::Calls(ids) => {
                ("Assistant", About::new(Author::Model).with_calls(ids.to_vec()), ids.join("+"))
            }
            Self::Result(id) => ("Tool", About::new(Author::Tool).with_answers([id]), id.to_owned()),
        };
        Item::new(Bytes::from(format!(r#"{{"{name}":"{text}"}}"#)), about)
    }
}

pub(crate) fn user(text: &str) -> Item {
    Said::User(text).item()
}

pub(crate) fn assistant(text: &str) -> Item {
    Said::Assistant(text).item()
}

pub(crate) fn calls(ids: &[&str]) -> Item {
    Said::Calls(ids).item()
}

pub(crate) fn result(id: &str) -> Item {
    Said::Result(id).item()
}

/// The same item, serialised in another way.
pub(crate) fn respaced(item: &Item) -> Item {
    let raw = [b" ", &item.raw()[..]].concat();
    Item::new(Bytes::from(raw), item.about().clone())
}

/// Says that [`respaced`] items are the same.
pub(crate) fn canonical(item: &Item) -> Canonical {
    let mut digest = [0; 16];
    for (at, byte) in item.raw().trim_ascii().iter().enumerate() {
        digest[at % 16] ^= byte.rotate_left(u32::try_from(at / 16).unwrap());
    }
    Canonical(digest)
}

pub(crate) fn turn(parent: Parent, sent: &[Item], reply: Item) -> Record {
    build(&[], parent, sent, reply, TurnState::Complete)
}

pub(crate) fn turn_with(instructions: &str, parent: Parent, sent: &[Item], reply: Item) -> Record {
    build(&[Said::System(instructions).item()], parent, sent, reply, TurnState::Complete)
}

pub(crate) fn interrupted(sent: &[Item], reply: Item) -> Record {
    build(&[], Parent::Previous, sent, reply, TurnState::Interrupted)
}

fn build(instructions: &[Item], parent: Parent, sent: &[Item], reply: Item, state: TurnState) -> Record {
    let mut parts = TurnParts::new(FORMAT, sent.to_vec(), vec![reply]);
    (parts.parent, parts.instructions, parts.state) = (parent, instructions.to_vec(), state);
    parts.into_record(&key())
}

/// A record of a kind that is no turn.
pub(crate) fn kind(kind: &str) -> Record {
    let id = RecordId::new();
    let session = key().digest().to_hex();
    let record = format!(r#"{{"v":"1.0","kind":"{kind}","id":"{id}","session":"{session}","at":0}}"#);
    Record::decode(Bytes::from(format!("{record}\nanything")), key().digest()).unwrap()
}

fn key() -> SessionKey {
    SessionKey::new("test", Principal::anonymous(), "s".parse().unwrap())
}

pub(crate) const FORMAT: Format = Format::from_static("test.toy");
