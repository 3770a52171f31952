//! The record that a store keeps of a turn, and of whatever else later versions add to a log.
//!
//! The format of records and of the envelopes that wrappers put around them is documented in `store/format.md`.
//! [`Record`] is what stores see: bytes with an id and a parent. [`Turn`] reads a record of kind `turn`.

mod envelope;
mod header;
mod id;
mod memory;
mod sum;
mod turn;

pub use envelope::Envelope;
pub use id::RecordId;
pub use turn::{Turn, TurnParts, TurnState};

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use self::header::{Content, Header};
use crate::session::KeyDigest;

/// Place that a turn continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Parent {
    /// The turn before it in the log, whichever that is when it is committed: an ordinary turn, so that
    /// concurrent turns of one session line up in commit order.
    #[default]
    Previous,
    /// None: the conversation starts again.
    Root,
    /// A place in the log: an edit, a regeneration, a superseded retry.
    At(Place),
}

/// Place in a log: a turn, and how many of its items are kept. A branch may leave a turn at any item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The turn.
    pub turn: RecordId,
    /// How many of its items are kept, from the first; 1 or more. More than the turn has means all.
    pub items: u32,
}

impl Parent {
    /// Id of the record that must be in the log, for a turn that names one.
    #[must_use]
    pub fn record(self) -> Option<RecordId> {
        match self {
            Self::Previous | Self::Root => None,
            Self::At(place) => Some(place.turn),
        }
    }
}

/// Element of a session's log: a turn, or a record of another kind.
///
/// As cheap to clone as an `Arc`. `Debug` shows no content. A record of a kind that this version does not know is
/// kept byte for byte and is part of no conversation; so is one in an [envelope](Self::envelope).
#[derive(Clone)]
pub struct Record(Arc<Decoded>);

/// The bytes, and what was read of them. The header is shared with the copies that caches make.
struct Decoded {
    header: Arc<Header>,
    bytes: Bytes,
    /// Both empty unless this is a turn.
    instructions: Bytes,
    items: Bytes,
}

/// Reason why bytes are no record of this session.
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
    /// What is inside an envelope is not the record that its header names.
    #[error("the stored record is in the envelope of another one")]
    Misplaced,
}

impl Record {
    /// Reads a record and checks that it belongs to this session.
    ///
    /// # Errors
    ///
    /// [`RecordError`] when the bytes are damaged, of a major version that this program does not know, or
    /// of another session.
    pub fn decode(bytes: Bytes, session: KeyDigest) -> Result<Self, RecordError> {
        let end = memchr::memchr(b'\n', &bytes).ok_or(RecordError::Malformed("no header line"))?;
        const DAMAGED: RecordError = RecordError::Malformed("its checksum is another");
        let header = match header::read(&bytes[..end], session) {
            // The session's digest may be what is damaged.
            Err(RecordError::Foreign) if !sum::holds(&bytes, end) => return Err(DAMAGED),
            header => header?,
        };
        if !sum::holds(&bytes, end) {
            return Err(DAMAGED);
        }
        let Content::Turn(turn) = &header.content else { return Ok(Self::without_items(header, bytes)) };
        let instructions = turn::section(&bytes, end + 1, &turn.instructions)?;
        let items_at = end + 1 + instructions.len() + 1;
        if bytes.get(items_at - 1) != Some(&b'\n') {
            return Err(RecordError::Malformed("the instructions are longer or shorter than they say"));
        }
        let items = turn::section(&bytes, items_at, &turn.items)?;
        if items_at + items.len() != bytes.len() {
            return Err(RecordError::Malformed("the items are longer or shorter than they say"));
        }
        Ok(Self(Arc::new(Decoded { header: Arc::new(header), bytes, instructions, items })))
    }

    /// The bytes to store, as [`Record::decode`] was given them.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.0.bytes
    }

    /// Whether it was made for this session.
    #[must_use]
    pub fn belongs_to(&self, session: KeyDigest) -> bool {
        session == self.0.header.session
    }

    /// Id of the record.
    #[must_use]
    pub fn id(&self) -> RecordId {
        self.0.header.id
    }

    /// Place that it continues.
    #[must_use]
    pub fn parent(&self) -> Parent {
        self.0.header.parent
    }

    /// When it was made, by the clock of the replica that made it. Orders nothing.
    #[must_use]
    pub fn at(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
            .checked_add(Duration::from_millis(self.0.header.at))
            .unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// Kind of the record: `turn`, or another. `None` in an [envelope](Self::envelope).
    #[must_use]
    pub fn kind(&self) -> Option<&str> {
        match &self.0.header.content {
            Content::Turn(_) => Some(header::TURN),
            Content::Other(kind) => Some(kind),
            Content::Envelope(_) => None,
        }
    }

    /// Whether it belongs to the record before it: a turn that begins with the result of a call, and a record that is no
    /// turn. A log that is trimmed does not begin with it. Known of an [envelope](Self::envelope), too.
    #[must_use]
    pub fn continues_exchange(&self) -> bool {
        match &self.0.header.content {
            Content::Envelope(envelope) => envelope.continues,
            _ => self
                .turn()
                .is_none_or(|turn| turn.about().next().is_some_and(|about| !about.answers.is_empty())),
        }
    }

    /// The turn that the record holds, if it is of that kind.
    #[must_use]
    pub fn turn(&self) -> Option<Turn<'_>> {
        match &self.0.header.content {
            Content::Turn(header) => Some(Turn::new(self, header)),
            Content::Envelope(_) | Content::Other(_) => None,
        }
    }

    /// A record that holds no items.
    fn without_items(header: Header, bytes: Bytes) -> Self {
        let (instructions, items) = (Bytes::new(), Bytes::new());
        Self(Arc::new(Decoded { header: Arc::new(header), bytes, instructions, items }))
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("id", &self.id())
            .field("kind", &self.kind())
            .field("parent", &self.parent())
            .field("bytes", &self.0.bytes.len())
            .finish_non_exhaustive()
    }
}
