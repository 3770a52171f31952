use bytes::Bytes;
use serde::Serialize;

use super::{
    Parent, Place, Record, RecordError, RecordId,
    header::{Content, EnvelopeHeader, Header, VERSION},
};
use crate::session::KeyDigest;

/// A record that a store wrapper has changed, and what names the change.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
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

/// The header of an envelope, as it is written.
#[derive(Serialize)]
struct Text<'a> {
    v: &'static str,
    id: RecordId,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<Option<Place>>,
    session: String,
    at: u64,
    coding: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    continues: bool,
}

impl Record {
    /// The envelope that this record is, if it is one. A log that is read without the wrapper that made it holds
    /// these.
    #[must_use]
    pub fn envelope(&self) -> Option<Envelope<'_>> {
        let Content::Envelope(header) = &self.0.header.content else { return None };
        Some(Envelope {
            coding: &header.coding,
            key: header.key.as_deref(),
            head: &self.0.bytes[..header.len],
            body: &self.0.bytes[header.len..],
        })
    }

    /// Puts this record into an envelope. `body` makes what is to stand in it, given the header line.
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
        let Header { id, parent, session, at, .. } = *self.0.header;
        let text = Text {
            v: VERSION,
            id,
            parent: match parent {
                Parent::Previous => None,
                Parent::Root => Some(None),
                Parent::At(place) => Some(Some(place)),
            },
            session: session.to_hex(),
            at,
            coding,
            key,
            continues: self.continues_exchange(),
        };
        // Strings and numbers always serialise; were they not to, every reader would refuse the record.
        let mut record = serde_json::to_vec(&text).unwrap_or_default();
        record.push(b'\n');
        let len = record.len();
        let body = body(&record)?;
        record.reserve_exact(body.len());
        record.extend_from_slice(&body);
        let (coding, key, continues) = (coding.to_owned(), key.map(str::to_owned), text.continues);
        let content = Content::Envelope(EnvelopeHeader { coding, key, continues, len });
        Ok(Self::without_items(Header { id, parent, session, at, content }, Bytes::from(record)))
    }

    /// The record that this envelope holds, from its bytes as they were before they were changed.
    ///
    /// # Errors
    ///
    /// [`RecordError`] when that is no record of this session, or another one than the envelope says.
    pub fn disclose(&self, bytes: Bytes, session: KeyDigest) -> Result<Record, RecordError> {
        let inside = Self::decode(bytes, session)?;
        let same = inside.id() == self.id()
            && inside.parent() == self.parent()
            && inside.0.header.at == self.0.header.at;
        if same { Ok(inside) } else { Err(RecordError::Misplaced) }
    }
}

impl EnvelopeHeader {
    /// Bytes on the heap.
    pub(super) fn weight(&self) -> usize {
        self.coding.capacity() + self.key.as_ref().map_or(0, String::capacity)
    }
}
