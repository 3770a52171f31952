//! The header line of a record: written piece by piece into the record, since every turn has one, and read by serde.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{Parent, Place, RecordError, RecordId, TurnParts, TurnState};
use crate::{
    history::{About, Author, ClientCase, Format, Item},
    session::KeyDigest,
};

pub(super) const VERSION: &str = "1.0";

/// The kind of record that is part of a conversation.
pub(super) const TURN: &str = "turn";

/// What is kept of a header.
pub(super) struct Header {
    pub(super) id: RecordId,
    pub(super) parent: Parent,
    pub(super) session: KeyDigest,
    pub(super) at: u64,
    pub(super) content: Content,
}

/// What is kept of a header beyond what every record has.
pub(super) enum Content {
    Turn(TurnHeader),
    Envelope(EnvelopeHeader),
    /// A kind that this version does not know: its name.
    Other(Box<str>),
}

/// What is kept of a turn's header.
pub(super) struct TurnHeader {
    pub(super) format: Format,
    pub(super) state: TurnState,
    pub(super) client: Option<ClientCase>,
    pub(super) finish_reason: Option<String>,
    pub(super) model: Option<String>,
    pub(super) usage: Option<Box<RawValue>>,
    pub(super) more: Option<Box<More>>,
    pub(super) instructions: Vec<Entry>,
    pub(super) items: Vec<Entry>,
    pub(super) sent: usize,
}

/// Members that most turns lack.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct More {
    pub(super) response_id: Option<String>,
    pub(super) attempt: Option<u32>,
    pub(super) idempotency_key: Option<String>,
    pub(super) view: Option<String>,
    pub(super) title: Option<String>,
}

/// What is kept of an envelope's header.
pub(super) struct EnvelopeHeader {
    pub(super) coding: String,
    pub(super) key: Option<String>,
    /// Whether the record inside begins with the result of a call.
    pub(super) continues: bool,
    /// Bytes of the header line, its line feed included.
    pub(super) len: usize,
}

/// One object in the header.
pub(super) struct Entry {
    pub(super) about: About,
    pub(super) len: usize,
}

/// The header of a turn or an envelope, as it is read.
#[derive(Deserialize)]
struct Text<'a> {
    #[serde(borrow)]
    v: Cow<'a, str>,
    #[serde(borrow, default)]
    kind: Option<Name<'a>>,
    #[serde(default)]
    coding: Option<String>,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    continues: bool,
    id: RecordId,
    #[serde(default, deserialize_with = "present")]
    parent: Option<Option<Place>>,
    #[serde(borrow)]
    session: Cow<'a, str>,
    at: u64,
    #[serde(borrow, default)]
    format: Option<Name<'a>>,
    #[serde(default)]
    state: Option<TurnState>,
    #[serde(default)]
    finish_reason: Option<String>,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    usage: Option<Box<RawValue>>,
    #[serde(default)]
    response_id: Option<String>,
    #[serde(default)]
    attempt: Option<u32>,
    #[serde(default)]
    idempotency_key: Option<String>,
    #[serde(borrow, default)]
    client: Option<Name<'a>>,
    #[serde(borrow, default)]
    view: Option<&'a RawValue>,
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    instructions: Vec<Entry>,
    #[serde(default)]
    items: Vec<Entry>,
    #[serde(default)]
    sent: Option<usize>,
}

/// What every record has, whatever its kind.
#[derive(Deserialize)]
struct Common<'a> {
    #[serde(borrow)]
    v: Cow<'a, str>,
    #[serde(borrow, default)]
    kind: Option<Name<'a>>,
    id: RecordId,
    #[serde(default, deserialize_with = "present")]
    parent: Option<Option<Place>>,
    #[serde(borrow)]
    session: Cow<'a, str>,
    at: u64,
}

/// A text that is borrowed unless it has escapes. `Option<Cow<str>>` would always copy it.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
struct Version {
    v: String,
}

/// By hand: flattened, its members would be collected first.
impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Flat {
            author: Author,
            #[serde(default)]
            opens: Option<bool>,
            #[serde(default)]
            calls: Vec<String>,
            #[serde(default)]
            answers: Vec<String>,
            len: usize,
        }
        let Flat { author, opens, calls, answers, len } = Flat::deserialize(deserializer)?;
        let opens = opens.unwrap_or_else(|| About::opens_by_default(author));
        Ok(Self { about: About { author, opens, calls, answers }, len })
    }
}

/// Reads a header line, without its line feed, if it is of this session.
pub(super) fn read(line: &[u8], session: KeyDigest) -> Result<Header, RecordError> {
    match serde_json::from_slice::<Text<'_>>(line) {
        Ok(text) => text.of(line, session),
        Err(error) => other_kind(line, session).unwrap_or_else(|| Err(unreadable(line, &error))),
    }
}

impl Text<'_> {
    fn of(self, line: &[u8], session: KeyDigest) -> Result<Header, RecordError> {
        if !is_known(&self.v) {
            return Err(unknown_version(self.v.into_owned()));
        }
        if !session.is_hex(&self.session) {
            return Err(RecordError::Foreign);
        }
        let parent = parent(self.parent)?;
        let content = match (self.coding, self.kind.as_ref().map(|kind| &*kind.0)) {
            (Some(coding), None) => {
                let (key, continues, len) = (self.key, self.continues, line.len() + 1);
                Content::Envelope(EnvelopeHeader { coding, key, continues, len })
            }
            (_, Some(TURN)) => {
                let (Some(format), Some(state), Some(sent)) = (self.format, self.state, self.sent) else {
                    return Err(RecordError::Malformed("a turn needs format, state, items and sent"));
                };
                let format =
                    format.0.parse().map_err(|_| RecordError::Malformed("its format is no name of one"))?;
                if self.items.is_empty() {
                    return Err(RecordError::Malformed("a turn has at least one item"));
                }
                if sent > self.items.len() {
                    return Err(RecordError::Malformed("more items were sent than there are"));
                }
                let more = More {
                    response_id: self.response_id,
                    attempt: self.attempt,
                    idempotency_key: self.idempotency_key,
                    view: self.view.map(|view| view.get().to_owned()),
                    title: self.title,
                };
                Content::Turn(TurnHeader {
                    format,
                    state,
                    client: self.client.and_then(|token| ClientCase::of(&token.0)),
                    finish_reason: self.finish_reason,
                    model: self.model,
                    usage: self.usage,
                    more: more.boxed(),
                    instructions: self.instructions,
                    items: self.items,
                    sent,
                })
            }
            (_, Some(kind)) => Content::Other(kind.into()),
            (None, None) => return Err(RecordError::Malformed("it has no kind")),
        };
        Ok(Header { id: self.id, parent, session, at: self.at, content })
    }
}

impl More {
    /// Nothing, where nothing is set.
    pub(super) fn boxed(self) -> Option<Box<Self>> {
        (self != Self::default()).then(|| Box::new(self))
    }
}

/// A header whose members are not a turn's, if it is of a kind that this version does not know.
fn other_kind(line: &[u8], session: KeyDigest) -> Option<Result<Header, RecordError>> {
    let common: Common<'_> = serde_json::from_slice(line).ok()?;
    let Name(kind) = common.kind.filter(|kind| kind.0 != TURN).filter(|_| is_known(&common.v))?;
    if !session.is_hex(&common.session) {
        return Some(Err(RecordError::Foreign));
    }
    Some(parent(common.parent).map(|parent| Header {
        id: common.id,
        parent,
        session,
        at: common.at,
        content: Content::Other(kind.into()),
    }))
}

/// What cannot be read may be of a version that looks otherwise.
fn unreadable(line: &[u8], error: &serde_json::Error) -> RecordError {
    match serde_json::from_slice::<Version>(line) {
        Ok(version) if !is_known(&version.v) => unknown_version(version.v),
        _ => RecordError::Header(error.column()),
    }
}

/// What the member `parent` says.
fn parent(member: Option<Option<Place>>) -> Result<Parent, RecordError> {
    match member {
        None => Ok(Parent::Previous),
        Some(None) => Ok(Parent::Root),
        Some(Some(Place { items: 0, .. })) => Err(RecordError::Malformed("its parent keeps no item")),
        Some(Some(place)) => Ok(Parent::At(place)),
    }
}

/// Writes the header of a turn, whose `usage` and `view` are on one line, without the brace that ends it.
pub(super) fn write(into: &mut Vec<u8>, parts: &TurnParts, session: KeyDigest, at: u64) {
    literal(into, "{\"v\":\"");
    literal(into, VERSION);
    literal(into, "\",\"kind\":\"turn\",\"id\":\"");
    id(into, parts.id);
    literal(into, "\"");
    match parts.parent {
        Parent::Previous => {}
        Parent::Root => literal(into, ",\"parent\":null"),
        Parent::At(Place { turn, items }) => {
            literal(into, ",\"parent\":{\"turn\":\"");
            id(into, turn);
            literal(into, "\",\"items\":");
            value(into, &items);
            literal(into, "}");
        }
    }
    literal(into, ",\"session\":\"");
    into.extend_from_slice(&session.hex_digits());
    literal(into, "\",\"at\":");
    value(into, &at);
    literal(into, ",\"format\":\"");
    literal(into, parts.format.as_str());
    literal(into, "\",\"state\":\"");
    literal(into, parts.state.as_str());
    literal(into, "\"");
    if let Some(client) = parts.client {
        literal(into, ",\"client\":\"");
        literal(into, client.as_str());
        literal(into, "\"");
    }
    for (key, text) in [
        (",\"finish_reason\":", &parts.finish_reason),
        (",\"model\":", &parts.model),
        (",\"response_id\":", &parts.response_id),
        (",\"idempotency_key\":", &parts.idempotency_key),
        (",\"title\":", &parts.title),
    ] {
        if let Some(text) = text {
            literal(into, key);
            value(into, text);
        }
    }
    if let Some(attempt) = parts.attempt {
        literal(into, ",\"attempt\":");
        value(into, &attempt);
    }
    for (key, raw) in [(",\"usage\":", &parts.usage), (",\"view\":", &parts.view)] {
        if let Some(raw) = raw {
            literal(into, key);
            literal(into, raw.get());
        }
    }
    if !parts.instructions.is_empty() {
        literal(into, ",\"instructions\":");
        entries(into, &parts.instructions);
    }
    literal(into, ",\"items\":");
    entries(into, parts.sent.iter().chain(&parts.reply));
    literal(into, ",\"sent\":");
    value(into, &parts.sent.len());
}

fn entries<'a>(into: &mut Vec<u8>, items: impl IntoIterator<Item = &'a Item>) {
    let mut before = "[{\"author\":\"";
    for item in items {
        let About { author, opens, calls, answers } = item.about();
        literal(into, before);
        literal(into, author.as_str());
        literal(into, "\"");
        if *opens != About::opens_by_default(*author) {
            literal(into, ",\"opens\":");
            value(into, opens);
        }
        for (key, ids) in [(",\"calls\":", calls), (",\"answers\":", answers)] {
            if !ids.is_empty() {
                literal(into, key);
                value(into, ids);
            }
        }
        literal(into, ",\"len\":");
        value(into, &item.raw().len());
        before = "},{\"author\":\"";
    }
    literal(into, if before.starts_with('[') { "[]" } else { "}]" });
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

fn is_known(version: &str) -> bool {
    version.split('.').next() == Some("1")
}

/// Tells `"parent":null` from an absent `parent`.
pub(super) fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Place>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A damaged record may name anything as its version: only what looks like one is repeated.
fn unknown_version(version: String) -> RecordError {
    let plausible = version.len() <= 16 && version.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    match plausible {
        true => RecordError::Version(version),
        false => RecordError::Malformed("its version is no version"),
    }
}
