//! The header line of a record: written piece by piece into the record, since every turn has one, and read by serde.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{Parent, RecordError, RecordId, TurnParts, TurnState, envelope};
use crate::{
    history::{About, Message, Role},
    session::KeyDigest,
};

pub(super) const VERSION: &str = "1.0";

/// What is kept of a header.
pub(super) struct Header {
    pub(super) id: RecordId,
    pub(super) parent: Parent,
    pub(super) session: KeyDigest,
    pub(super) at: u64,
    pub(super) state: TurnState,
    pub(super) finish_reason: Option<String>,
    pub(super) model: Option<String>,
    pub(super) usage: Option<Box<RawValue>>,
    pub(super) instructions: Vec<Entry>,
    pub(super) messages: Vec<Entry>,
    pub(super) sent: usize,
    pub(super) envelope: Option<envelope::About>,
}

/// One object in the header.
pub(super) struct Entry {
    pub(super) about: About,
    pub(super) len: usize,
}

/// A header as it is read.
#[derive(Deserialize)]
pub(super) struct Text<'a> {
    #[serde(borrow)]
    v: Cow<'a, str>,
    id: RecordId,
    #[serde(default, deserialize_with = "present")]
    parent: Option<Option<RecordId>>,
    #[serde(borrow)]
    session: Cow<'a, str>,
    at: u64,
    state: TurnState,
    #[serde(default)]
    finish_reason: Option<String>,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    usage: Option<Box<RawValue>>,
    #[serde(default)]
    instructions: Vec<Entry>,
    messages: Vec<Entry>,
    sent: usize,
}

/// By hand: flattened, its members would be collected first.
impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Flat {
            role: Role,
            #[serde(default)]
            calls: Vec<String>,
            #[serde(default)]
            answers: Option<String>,
            len: usize,
        }
        let Flat { role, calls, answers, len } = Flat::deserialize(deserializer)?;
        Ok(Self { about: About { role, calls, answers }, len })
    }
}

#[derive(Deserialize)]
struct Version {
    v: String,
}

impl<'a> Text<'a> {
    pub(super) fn read(line: &'a [u8]) -> Result<Self, RecordError> {
        match serde_json::from_slice::<Self>(line) {
            Ok(header) if is_known(&header.v) => Ok(header),
            Ok(header) => Err(unknown_version(header.v.into_owned())),
            // What cannot be read may be of a version that looks otherwise.
            Err(error) => Err(match serde_json::from_slice::<Version>(line) {
                Ok(version) if !is_known(&version.v) => unknown_version(version.v),
                _ => header_error(error),
            }),
        }
    }

    /// What is kept of it, if it is of this session.
    pub(super) fn of(self, session: KeyDigest) -> Result<Header, RecordError> {
        if !session.is_hex(&self.session) {
            return Err(RecordError::Foreign);
        }
        let Self { id, at, state, finish_reason, model, usage, instructions, messages, sent, .. } = self;
        let parent = parent(self.parent);
        let envelope = None;
        Ok(Header {
            id,
            parent,
            session,
            at,
            state,
            finish_reason,
            model,
            usage,
            instructions,
            messages,
            sent,
            envelope,
        })
    }
}

/// What the member `parent` says.
pub(super) fn parent(member: Option<Option<RecordId>>) -> Parent {
    match member {
        None => Parent::Previous,
        Some(None) => Parent::Root,
        Some(Some(id)) => Parent::Turn(id),
    }
}

/// Writes the header of a turn, whose `usage` is on one line, without the line feed that ends it.
pub(super) fn write(into: &mut Vec<u8>, parts: &TurnParts, session: KeyDigest, at: u64) {
    literal(into, "{\"v\":\"");
    literal(into, VERSION);
    literal(into, "\",\"id\":\"");
    id(into, parts.id);
    match parts.parent {
        Parent::Previous => literal(into, "\""),
        Parent::Root => literal(into, "\",\"parent\":null"),
        Parent::Turn(parent) => {
            literal(into, "\",\"parent\":\"");
            id(into, parent);
            literal(into, "\"");
        }
    }
    literal(into, ",\"session\":\"");
    into.extend_from_slice(&session.hex_digits());
    literal(into, "\",\"at\":");
    value(into, &at);
    literal(into, ",\"state\":\"");
    literal(into, parts.state.as_str());
    literal(into, "\"");
    for (key, text) in [(",\"finish_reason\":", &parts.finish_reason), (",\"model\":", &parts.model)] {
        if let Some(text) = text {
            literal(into, key);
            value(into, text);
        }
    }
    if let Some(usage) = &parts.usage {
        literal(into, ",\"usage\":");
        literal(into, usage.get());
    }
    if !parts.instructions.is_empty() {
        literal(into, ",\"instructions\":");
        entries(into, &parts.instructions);
    }
    literal(into, ",\"messages\":");
    entries(into, parts.sent.iter().chain([&parts.reply]));
    literal(into, ",\"sent\":");
    value(into, &parts.sent.len());
    literal(into, "}");
}

fn entries<'a>(into: &mut Vec<u8>, messages: impl IntoIterator<Item = &'a Message>) {
    let mut before = "[{\"role\":";
    for message in messages {
        let About { role, calls, answers } = message.about();
        literal(into, before);
        value(into, role.as_str());
        if !calls.is_empty() {
            literal(into, ",\"calls\":");
            value(into, calls);
        }
        if let Some(answers) = answers {
            literal(into, ",\"answers\":");
            value(into, answers);
        }
        literal(into, ",\"len\":");
        value(into, &message.raw().len());
        before = "},{\"role\":";
    }
    literal(into, "}]");
}

fn literal(into: &mut Vec<u8>, text: &str) {
    into.extend_from_slice(text.as_bytes());
}

fn id(into: &mut Vec<u8>, id: RecordId) {
    literal(into, id.0.hyphenated().encode_lower(&mut [0; 36]));
}

/// Serialising strings and numbers into memory cannot fail; were it to, the record would be refused by every reader
/// instead of being read wrong.
fn value<T: serde::Serialize + ?Sized>(into: &mut Vec<u8>, value: &T) {
    let _ = serde_json::to_writer(into, value);
}

/// Line ends between the tokens of raw JSON become spaces, since a line feed ends the header. Inside strings
/// JSON has none.
pub(super) fn on_one_line(json: Box<RawValue>) -> Box<RawValue> {
    match memchr::memchr2(b'\n', b'\r', json.get().as_bytes()) {
        Some(_) => RawValue::from_string(json.get().replace(['\n', '\r'], " ")).unwrap_or(json),
        None => json,
    }
}

pub(super) fn is_known(version: &str) -> bool {
    version.split('.').next() == Some("1")
}

/// Tells `"parent":null` from an absent `parent`.
pub(super) fn present<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<RecordId>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

fn header_error(error: serde_json::Error) -> RecordError {
    RecordError::Header(error.column())
}

/// A damaged record may name anything as its version: only what looks like one is repeated.
fn unknown_version(version: String) -> RecordError {
    let plausible = version.len() <= 16 && version.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    match plausible {
        true => RecordError::Version(version),
        false => RecordError::Malformed("its version is no version"),
    }
}
