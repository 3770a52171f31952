use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    Decoded, Header, Parent, Record, RecordError, RecordId, TurnState,
    header::{self, VERSION, is_known, present},
};
use crate::session::KeyDigest;

/// A record that a store wrapper has changed, and what names the change.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    /// What was done to the record.
    pub coding: &'a str,
    /// With which key.
    pub key: Option<&'a str>,
    /// The header line, its line feed included: what a cipher authenticates with the body.
    pub head: &'a [u8],
    /// What became of the record.
    pub body: &'a [u8],
}

/// What a turn that is an envelope keeps of its header.
pub(super) struct About {
    coding: String,
    key: Option<String>,
    /// Bytes of the header line, its line feed included.
    head: usize,
}

#[derive(Serialize, Deserialize)]
struct EnvelopeHeader {
    v: String,
    id: RecordId,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    parent: Option<Option<RecordId>>,
    session: String,
    at: u64,
    coding: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

impl Record {
    /// The envelope that this turn's record is, if it is one. Whoever reads a log without the wrapper that
    /// made it meets these.
    #[must_use]
    pub fn envelope(&self) -> Option<Envelope<'_>> {
        let about = self.0.header.envelope.as_ref()?;
        Some(Envelope {
            coding: &about.coding,
            key: about.key.as_deref(),
            head: &self.0.record[..about.head],
            body: &self.0.record[about.head..],
        })
    }

    /// Puts this turn into an envelope. `body` makes what is to stand in it, given the header line.
    ///
    /// # Errors
    ///
    /// Whatever `body` answers.
    pub fn enclose<E>(
        &self,
        coding: &str,
        key: Option<&str>,
        body: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
    ) -> Result<Record, E> {
        let header = EnvelopeHeader {
            v: VERSION.to_owned(),
            id: self.0.header.id,
            parent: match self.0.header.parent {
                Parent::Previous => None,
                Parent::Root => Some(None),
                Parent::Turn(id) => Some(Some(id)),
            },
            session: self.0.header.session.to_hex(),
            at: self.0.header.at,
            coding: coding.to_owned(),
            key: key.map(str::to_owned),
        };
        // Strings and numbers always serialise; were they not to, every reader would refuse the record.
        let mut record = serde_json::to_vec(&header).unwrap_or_default();
        record.push(b'\n');
        let head = record.len();
        let body = body(&record)?;
        record.reserve_exact(body.len());
        record.extend_from_slice(&body);
        Ok(header.into_record(Bytes::from(record), head, self.0.header.session))
    }

    /// The turn that this envelope holds, from its record as it was before it was changed.
    ///
    /// # Errors
    ///
    /// [`RecordError`] when that is no record of this session, or of another turn than the envelope says.
    pub fn disclose(&self, record: Bytes, session: KeyDigest) -> Result<Record, RecordError> {
        let turn = Self::decode(record, session)?;
        let same =
            turn.id() == self.id() && turn.parent() == self.parent() && turn.0.header.at == self.0.header.at;
        if same { Ok(turn) } else { Err(RecordError::Misplaced) }
    }
}

/// Reads an envelope whose header ends before `end`; `None` if that is no header of one.
pub(super) fn decode(record: Bytes, end: usize, session: KeyDigest) -> Option<Result<Record, RecordError>> {
    let header: EnvelopeHeader = serde_json::from_slice(&record[..end]).ok()?;
    if !is_known(&header.v) {
        return None;
    }
    if !session.is_hex(&header.session) {
        return Some(Err(RecordError::Foreign));
    }
    Some(Ok(header.into_record(record, end + 1, session)))
}

impl EnvelopeHeader {
    fn into_record(self, record: Bytes, head: usize, session: KeyDigest) -> Record {
        let header = Header {
            id: self.id,
            parent: header::parent(self.parent),
            session,
            at: self.at,
            state: TurnState::Complete,
            finish_reason: None,
            model: None,
            usage: None,
            instructions: Vec::new(),
            messages: Vec::new(),
            sent: 0,
            envelope: Some(About { coding: self.coding, key: self.key, head }),
        };
        let (instructions, messages) = (Bytes::new(), Bytes::new());
        Record(Arc::new(Decoded { header: Arc::new(header), record, instructions, messages }))
    }
}

impl About {
    /// Bytes on the heap.
    pub(super) fn weight(&self) -> usize {
        self.coding.capacity() + self.key.as_ref().map_or(0, String::capacity)
    }
}
