//! One turn, and the record that a store keeps of it. The format of records and of the envelopes that wrappers
//! put around them is documented in `store/format.md`.

mod envelope;
mod header;
mod id;
mod memory;

pub use envelope::Envelope;
pub use id::RecordId;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use self::header::{Entry, Header};
use super::{About, Message, Role};
use crate::session::{KeyDigest, SessionKey};

/// Which turn a turn continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Parent {
    /// The turn before it in the log, whichever that is when it is committed: what an ordinary turn does, so
    /// concurrent turns of one session line up in commit order.
    #[default]
    Previous,
    /// None: it starts the conversation again.
    Root,
    /// A turn of the log: an edit, a regeneration, a superseded retry.
    Turn(RecordId),
}

/// How much of the reply a turn holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TurnState {
    /// The reply ended by itself.
    Complete,
    /// The client left first; the reply is what it was sent.
    Interrupted,
}

impl TurnState {
    /// As records hold it.
    fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Interrupted => "interrupted",
        }
    }
}

/// One turn: the client's new messages and the reply, whole or not at all.
///
/// As cheap to clone as an `Arc`. `Debug` shows no content.
///
/// A turn that is an [envelope](Self::envelope) has an id, a parent and a time, and no messages.
#[derive(Clone)]
pub struct Record(Arc<Decoded>);

/// A record, and what was read of it. The header is shared with the copies that caches make.
struct Decoded {
    header: Arc<Header>,
    record: Bytes,
    instructions: Bytes,
    messages: Bytes,
}

/// What a turn is made of; see [`TurnParts::into_record`].
#[derive(Debug, Clone)]
pub struct TurnParts {
    /// The turn's id.
    pub id: RecordId,
    /// The turn it continues.
    pub parent: Parent,
    /// When it was made; informative, orders nothing.
    pub at: SystemTime,
    /// The client's instructions, if they differ from those of the path; else empty.
    pub instructions: Vec<Message>,
    /// The client's new messages.
    pub sent: Vec<Message>,
    /// The reply.
    pub reply: Message,
    /// Whole, or cut by the client's leaving.
    pub state: TurnState,
    /// What the provider gave as the reason for ending.
    pub finish_reason: Option<String>,
    /// The model that the reply names.
    pub model: Option<String>,
    /// The reply's `usage` member, as raw JSON.
    pub usage: Option<Box<RawValue>>,
}

/// Why bytes are no turn of this session.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The bytes are no record, or a damaged one.
    #[error("the stored record is damaged: {0}")]
    Malformed(&'static str),
    /// The header is not the JSON that it should be; the number is where, in bytes. (The parser's own error
    /// would quote what it read there, which may be a message.)
    #[error("the stored record's header cannot be read (at byte {0})")]
    Header(usize),
    /// The record was written by a version that this one cannot read.
    #[error("the stored record has format version {0}; this program reads 1.x")]
    Version(String),
    /// The log that the record stands in was written by a version that this one cannot read.
    #[error("the stored log has layout version {0}; this program reads 1.x")]
    Layout(String),
    /// The record belongs to another session.
    #[error("the store answered with a record of another session")]
    Foreign,
    /// What is inside an envelope is not the turn that its header names.
    #[error("the stored record is in the envelope of another one")]
    Misplaced,
}

impl TurnParts {
    /// Builds the turn and its record for this session.
    #[must_use]
    pub fn into_record(mut self, key: &SessionKey) -> Record {
        self.usage = self.usage.map(header::on_one_line);
        let messages = || self.sent.iter().chain([&self.reply]);
        let texts = self.instructions.iter().chain(messages()).map(|message| message.raw().len() + ENTRY);
        let said = self.model.as_ref().map_or(0, String::len)
            + self.usage.as_ref().map_or(0, |usage| usage.get().len());
        let mut record = Vec::with_capacity(HEADER + said + texts.sum::<usize>());
        let at = self.at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_millis() as u64);
        header::write(&mut record, &self, key.digest(), at);
        record.push(b'\n');
        let instructions_at = record.len();
        join(&mut record, &self.instructions);
        record.push(b'\n');
        let messages_at = record.len();
        join(&mut record, messages());
        let record = Bytes::from(record);
        let sent = self.sent.len();
        let mut instructions = Vec::with_capacity(self.instructions.len());
        instructions.extend(self.instructions.into_iter().map(Entry::of));
        let mut messages = Vec::with_capacity(sent + 1);
        messages.extend(self.sent.into_iter().chain([self.reply]).map(Entry::of));
        let header = Header {
            id: self.id,
            parent: self.parent,
            session: key.digest(),
            at,
            state: self.state,
            finish_reason: self.finish_reason,
            model: self.model,
            usage: self.usage,
            instructions,
            messages,
            sent,
            envelope: None,
        };
        Record(Arc::new(Decoded {
            header: Arc::new(header),
            instructions: record.slice(instructions_at..messages_at - 1),
            messages: record.slice(messages_at..),
            record,
        }))
    }
}

/// What a header takes without model and usage, and what a message takes of it: about.
const HEADER: usize = 208;
const ENTRY: usize = 36;

impl Record {
    /// Reads a record and checks that it belongs to this session.
    ///
    /// # Errors
    ///
    /// [`RecordError`] when the bytes are damaged, of a major version that this program does not know, or
    /// of another session.
    pub fn decode(record: Bytes, session: KeyDigest) -> Result<Self, RecordError> {
        let end = memchr::memchr(b'\n', &record).ok_or(RecordError::Malformed("no header line"))?;
        let header = match header::Text::read(&record[..end]) {
            Ok(header) => header.of(session)?,
            Err(error) => return envelope::decode(record, end, session).unwrap_or(Err(error)),
        };
        if header.sent.checked_add(1) != Some(header.messages.len()) {
            return Err(RecordError::Malformed("the number of messages is wrong"));
        }
        let instructions = section(&record, end + 1, &header.instructions)?;
        let messages_at = end + 1 + instructions.len() + 1;
        if record.get(messages_at - 1) != Some(&b'\n') {
            return Err(RecordError::Malformed("the instructions are longer or shorter than they say"));
        }
        let messages = section(&record, messages_at, &header.messages)?;
        if messages_at + messages.len() != record.len() {
            return Err(RecordError::Malformed("the messages are longer or shorter than they say"));
        }
        Ok(Self(Arc::new(Decoded { header: Arc::new(header), record, instructions, messages })))
    }

    /// The record to store, byte for byte what [`Record::decode`] was given.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.0.record
    }

    /// Whether it was made for this session.
    #[must_use]
    pub fn belongs_to(&self, session: KeyDigest) -> bool {
        session == self.0.header.session
    }

    /// The turn's id.
    #[must_use]
    pub fn id(&self) -> RecordId {
        self.0.header.id
    }

    /// The turn that it continues.
    #[must_use]
    pub fn parent(&self) -> Parent {
        self.0.header.parent
    }

    /// When it was made, by the clock of the replica that made it.
    #[must_use]
    pub fn at(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
            .checked_add(Duration::from_millis(self.0.header.at))
            .unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// Complete or interrupted.
    #[must_use]
    pub fn state(&self) -> TurnState {
        self.0.header.state
    }

    /// What the provider gave as the reason for ending.
    #[must_use]
    pub fn finish_reason(&self) -> Option<&str> {
        self.0.header.finish_reason.as_deref()
    }

    /// The model that the reply names.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.0.header.model.as_deref()
    }

    /// The reply's `usage`, as raw JSON.
    #[must_use]
    pub fn usage(&self) -> Option<&RawValue> {
        self.0.header.usage.as_deref()
    }

    /// How many messages the turn holds, the reply among them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.header.messages.len()
    }

    /// Only of an [envelope](Self::envelope): a turn holds at least its reply.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.header.messages.is_empty()
    }

    /// How many of its messages came from the client.
    #[must_use]
    pub fn sent(&self) -> usize {
        self.0.header.sent
    }

    /// What is known of each message, in order.
    pub fn about(&self) -> impl ExactSizeIterator<Item = &About> + DoubleEndedIterator {
        self.0.header.messages.iter().map(|entry| &entry.about)
    }

    /// The messages, in order; the last is the reply.
    pub fn messages(&self) -> impl Iterator<Item = Message> + '_ {
        slices(&self.0.messages, &self.0.header.messages)
    }

    /// The instructions that the turn brought; empty when they had not changed.
    pub fn instructions(&self) -> impl Iterator<Item = Message> + '_ {
        slices(&self.0.instructions, &self.0.header.instructions)
    }

    /// The messages as they are spliced: raw JSON objects joined by single commas.
    #[must_use]
    pub fn message_bytes(&self) -> &Bytes {
        &self.0.messages
    }

    /// The instructions as they are spliced; empty when the turn brought none.
    #[must_use]
    pub fn instruction_bytes(&self) -> &Bytes {
        &self.0.instructions
    }

    /// The first `count` messages as they are spliced.
    #[must_use]
    pub fn first_message_bytes(&self, count: usize) -> Bytes {
        let taken: usize = self.0.header.messages.iter().take(count).map(|entry| entry.len + 1).sum();
        self.0.messages.slice(..taken.saturating_sub(1))
    }

    /// Whether the turn begins with the result of a tool call, which the turn before it must have made.
    #[must_use]
    pub fn opens_with_result(&self) -> bool {
        self.about().next().is_some_and(|about| about.answers.is_some())
    }

    /// Whether the turn begins with a user message: where a window may cut.
    #[must_use]
    pub fn opens_with_user(&self) -> bool {
        self.about().next().is_some_and(|about| about.role == Role::User)
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("id", &self.id())
            .field("parent", &self.parent())
            .field("state", &self.state())
            .field("messages", &self.len())
            .field("bytes", &self.0.record.len())
            .finish_non_exhaustive()
    }
}

impl Entry {
    fn of(message: Message) -> Self {
        Self { len: message.raw().len(), about: message.into_about() }
    }
}

fn join<'a>(into: &mut Vec<u8>, messages: impl IntoIterator<Item = &'a Message>) {
    for (index, message) in messages.into_iter().enumerate() {
        if index > 0 {
            into.push(b',');
        }
        into.extend_from_slice(message.raw());
    }
}

/// The joined bytes that these entries describe, with every comma in its place.
fn section(record: &Bytes, at: usize, entries: &[Entry]) -> Result<Bytes, RecordError> {
    let mut end = at;
    for (index, entry) in entries.iter().enumerate() {
        if index > 0 {
            if record.get(end) != Some(&b',') {
                return Err(RecordError::Malformed("a message is longer or shorter than it says"));
            }
            end += 1;
        }
        end = end.checked_add(entry.len).ok_or(RecordError::Malformed("a length is out of range"))?;
    }
    if end > record.len() || at > end {
        return Err(RecordError::Malformed("it ends early"));
    }
    Ok(record.slice(at..end))
}

fn slices<'a>(joined: &'a Bytes, entries: &'a [Entry]) -> impl Iterator<Item = Message> + 'a {
    entries.iter().scan(0, |at, entry| {
        let raw = joined.slice(*at..*at + entry.len);
        *at += entry.len + 1;
        Some(Message::new(raw, entry.about.clone()))
    })
}
