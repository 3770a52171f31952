//! A record as stores see it: bytes with an id and a parent.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use super::{
    error::RecordError,
    header::{self, Content, Entry, Header},
    id::RecordId,
    place::Parent,
    sum,
};
use crate::session::KeyDigest;

/// Element of a session's log: a turn, or a record of another kind.
///
/// As cheap to clone as an `Arc`. `Debug` shows no content. A record of a kind that this version does not know is
/// kept byte for byte and is part of no conversation; so is one in an [envelope](Self::envelope).
#[derive(Clone)]
pub struct Record(pub(super) Arc<Decoded>);

/// The bytes, and what was read of them. The header is shared with the copies that caches make.
pub(super) struct Decoded {
    pub(super) header: Arc<Header>,
    pub(super) bytes: Bytes,
    /// Both empty unless this is a turn.
    pub(super) instructions: Bytes,
    pub(super) items: Bytes,
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
        let instructions = section(&bytes, end + 1, &turn.instructions)?;
        let items_at = end + 1 + instructions.len() + 1;
        if bytes.get(items_at - 1) != Some(&b'\n') {
            return Err(RecordError::Malformed("the instructions are longer or shorter than they say"));
        }
        let items = section(&bytes, items_at, &turn.items)?;
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

    /// A record that holds no items.
    pub(super) fn without_items(header: Header, bytes: Bytes) -> Self {
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

/// The joined bytes that these entries describe, with every comma in its place.
fn section(record: &Bytes, at: usize, entries: &[Entry]) -> Result<Bytes, RecordError> {
    let mut end = at;
    for (index, entry) in entries.iter().enumerate() {
        if index > 0 {
            if record.get(end) != Some(&b',') {
                return Err(RecordError::Malformed("an item is longer or shorter than it says"));
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
