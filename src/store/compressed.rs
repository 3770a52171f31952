//! A wrapper that compresses records.

use std::{fmt, io};

use bytes::Bytes;

use super::{
    Appended, Cursor, HistoryStore, LoadOptions, Loaded, ReadOptions, RecordPage, StoreError, StoreErrorKind,
};
use crate::{history::Record, session::SessionKey};

/// Any store, with records compressed by Zstandard.
///
/// A record goes into an [envelope](crate::history::Record::envelope) of coding `zstd`, one frame with a checksum.
/// Records below [`min_bytes`](Self::with_min_bytes), and those that would not become smaller, are stored as
/// they are. Both kinds are read, so a store may be wrapped, unwrapped for new records by a wrapper that is set
/// to compress none, or written by replicas of both kinds.
///
/// Ids, parents and times stay readable in the store; what was said does not, though this is no encryption.
/// Compressing and unpacking happen on the calling thread: tens of microseconds for a usual turn, tens of
/// milliseconds for one of 8 MiB.
///
/// # Order of wrappers
///
/// Outside [`Encrypted`](crate::store), since what is encrypted does not compress:
/// `Cached<Compressed<Encrypted<S>>>`.
///
/// # What lengths tell
///
/// Under encryption the length of a record is visible, and compressed it depends on what was said. An
/// observer of the store that can also choose parts of the messages may learn something about the other parts: do not
/// compress there.
///
/// # Defaults
///
/// Level 1; records of 512 bytes and more; records of up to 64 MiB.
#[derive(Clone)]
pub struct Compressed<S> {
    inner: S,
    level: i32,
    min_bytes: usize,
    max_bytes: usize,
}

/// Why a compressed record cannot be read.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("the stored record does not unpack")]
    Damaged(#[source] io::Error),
    #[error("the stored record unpacks to another size than it says, or to more than {0} bytes")]
    Size(usize),
}

const CODING: &str = "zstd";

impl<S> Compressed<S> {
    /// Compresses what goes into this store.
    #[must_use]
    pub fn new(inner: S) -> Self {
        Self { inner, level: 1, min_bytes: 512, max_bytes: 64 * 1024 * 1024 }
    }

    /// How hard to try, 1 to 22. Default: 1, which makes text two to three times smaller; 3 gains a few percent
    /// for twice the time.
    #[must_use]
    pub fn with_level(mut self, level: u8) -> Self {
        self.level = i32::from(level.clamp(1, 22));
        self
    }

    /// Leaves smaller records alone. Default: 512 bytes.
    #[must_use]
    pub fn with_min_bytes(mut self, bytes: usize) -> Self {
        self.min_bytes = bytes;
        self
    }

    /// The largest record, before it is compressed. A larger one is refused as
    /// [too large](StoreErrorKind::TooLarge) when it is appended, and as corrupt when it is found in the store.
    /// Default: 64 MiB.
    #[must_use]
    pub fn with_max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    fn pack(&self, turn: &Record) -> Result<Record, StoreError> {
        let record = turn.bytes();
        if record.len() > self.max_bytes {
            return Err(StoreError::new(StoreErrorKind::TooLarge));
        }
        if record.len() < self.min_bytes {
            return Ok(turn.clone());
        }
        let packed = turn
            .enclose(CODING, None, |_| pack(record, self.level))
            .map_err(|error| StoreError::with_source(StoreErrorKind::Other, error))?;
        Ok(if packed.bytes().len() < record.len() { packed } else { turn.clone() })
    }

    /// The turn itself, or what is in the envelope. Envelopes of other codings are another wrapper's.
    fn unpack(&self, key: &SessionKey, turn: Record) -> Result<Record, StoreError> {
        let Some(envelope) = turn.envelope().filter(|envelope| envelope.coding == CODING) else {
            return Ok(turn);
        };
        let record = unpack(envelope.body, self.max_bytes)
            .map_err(|error| StoreError::with_source(StoreErrorKind::Corrupt, error))?;
        Ok(turn.disclose(record, key.digest())?)
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: HistoryStore> HistoryStore for Compressed<S> {
    async fn load(
        &self,
        key: &SessionKey,
        options: impl Into<LoadOptions> + Send,
    ) -> Result<Loaded, StoreError> {
        let loaded = self.inner.load(key, options).await?;
        if !loaded.records.hold_envelopes() {
            return Ok(loaded);
        }
        let records =
            loaded.records.into_iter().map(|record| self.unpack(key, record)).collect::<Result<_, _>>()?;
        Ok(Loaded { records, ..loaded })
    }

    async fn read(&self, key: &SessionKey, options: &ReadOptions) -> Result<RecordPage, StoreError> {
        let page = self.inner.read(key, options).await?;
        let records =
            page.records.into_iter().map(|record| self.unpack(key, record)).collect::<Result<_, _>>()?;
        Ok(RecordPage { records, ..page })
    }

    async fn append(&self, key: &SessionKey, at: &Cursor, record: &Record) -> Result<Appended, StoreError> {
        self.inner.append(key, at, &self.pack(record)?).await
    }

    crate::delegate_history_store!(
        |this| this.inner;
        delete, sessions, principals, delete_principal, expire, durability, name, close
    );
}

impl<S: fmt::Debug> fmt::Debug for Compressed<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressed")
            .field("inner", &self.inner)
            .field("level", &self.level)
            .finish_non_exhaustive()
    }
}

fn pack(record: &[u8], level: i32) -> io::Result<Vec<u8>> {
    let mut compressor = zstd::bulk::Compressor::new(level)?;
    compressor.include_checksum(true)?;
    compressor.compress(record)
}

/// Exactly one frame, of the size that it says.
fn unpack(body: &[u8], max_bytes: usize) -> Result<Bytes, Unreadable> {
    let size = zstd::zstd_safe::get_frame_content_size(body).ok().flatten();
    let size = size.and_then(|size| usize::try_from(size).ok()).filter(|size| *size <= max_bytes);
    let size = size.ok_or(Unreadable::Size(max_bytes))?;
    let record = zstd::bulk::decompress(body, size).map_err(Unreadable::Damaged)?;
    if record.len() != size {
        return Err(Unreadable::Size(max_bytes));
    }
    Ok(Bytes::from(record))
}
