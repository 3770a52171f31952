//! A wrapper that encrypts records.
//!
//! ```
//! use tower_session_memory::store::{Encrypted, InMemoryStore, encrypted::KeyRing};
//!
//! // `openssl rand -base64 32` makes a key.
//! let ring = KeyRing::parse("2026-05 6RU8JcSCP1Q1F9d5bUz0pY3mV3q0Jx2T0p8m2qkQ0cE=").unwrap();
//! let store = Encrypted::new(InMemoryStore::new(), ring);
//! # let _ = store;
//! ```
//!
//! # What is encrypted
//!
//! The whole record: messages, instructions, model, usage. What a store needs stays readable: namespace, principal
//! and session id as the store keeps them, ids, parents and times of turns, how long each record is, and whether a turn
//! begins with the result of a call.
//!
//! # Format
//!
//! A record goes into an [envelope](crate::history::Record::envelope) of coding `xchacha20-poly1305` with the id of
//! the key. Its body is a random nonce of 24 bytes and the ciphertext with its tag; the envelope's header line is
//! the associated data. The plaintext is the cursor that the turn was built on (epoch, 16 bytes; count, 8 bytes,
//! big endian; id of the newest turn or zeros, 16 bytes) and the record. Each session has a key of its own,
//! HKDF-Expand of the master key over the session's key.
//!
//! # What is noticed
//!
//! A user that can write to the store can destroy sessions, and cannot make them say something else. A load is refused
//! when
//!
//! - a byte of a record was changed, its header included;
//! - a record was put in another session, or the key is another one;
//! - a record that was never encrypted was put among the others;
//! - a record stands twice, or turns stand in another order than the one they were built in;
//! - a record of a deleted session was put in the one that came after it, but in first place or when it began a
//!   session itself.
//!
//! What was built on the same turn at the same time may be swapped without notice: either order was possible. So
//! may the newest turns be taken away, or the oldest where turns are [trimmed](crate::store::Loaded::trimmed):
//! a store that is set back to an earlier state looks like that state. A single turn that is missing before the
//! newest is logged as a warning, since a server may also have lost it. A load after a cursor, as
//! [`Cached`](crate::store::Cached) makes them, checks the new turns against that cursor and each other.

mod keys;
mod order;
mod seal;
mod seal_error;

pub use keys::{InvalidKeyRing, KeyRing};

use std::fmt;

use self::seal_error::SealError;
use super::{Appended, Cursor, HistoryStore, LoadOptions, Loaded, ReadOptions, RecordPage, StoreError};
use crate::{
    history::{Record, RecordId},
    session::SessionKey,
};

/// Any store, with records encrypted and bound to their sessions and places. The [module](self) tells how, and
/// what is noticed.
///
/// A record that does not open is an error that names the id of its key, never an empty or shortened history.
/// Encrypting and decrypting happen on the calling thread: microseconds for a usual turn, some ten milliseconds
/// for one of 8 MiB.
#[derive(Clone)]
pub struct Encrypted<S> {
    inner: S,
    ring: KeyRing,
    accepts_plain: bool,
}

impl<S> Encrypted<S> {
    /// Encrypts what goes into this store. The first key of the ring seals, all open.
    #[must_use]
    pub fn new(inner: S, ring: KeyRing) -> Self {
        Self { inner, ring, accepts_plain: false }
    }

    /// Reads records that are not encrypted, for a store that already has some. Default: they are refused.
    ///
    /// Until it is taken away again, a user that can write to the store can add turns to sessions.
    #[must_use]
    pub fn danger_accept_plain_records(mut self) -> Self {
        self.accepts_plain = true;
        self
    }

    fn open(&self, key: &SessionKey, turn: Record) -> Result<(Record, Option<Cursor>), SealError> {
        let sealed = turn.envelope().is_some_and(|envelope| envelope.coding == seal::CODING);
        if !sealed && self.accepts_plain {
            return Ok((turn, None));
        }
        let opened = seal::open(&self.ring, key, &turn)?;
        Ok((opened.turn, Some(opened.base)))
    }

    fn open_all(
        &self,
        key: &SessionKey,
        after: Option<&Cursor>,
        loaded: Loaded,
    ) -> Result<Loaded, SealError> {
        let mut opened: Vec<(RecordId, Option<Cursor>)> = Vec::with_capacity(loaded.records.len());
        let Loaded { cursor, records: turns, from_start, trimmed } = loaded;
        let turns = turns.into_iter().map(|turn| {
            let (plain, base) = self.open(key, turn)?;
            opened.push((plain.id(), base));
            Ok(plain)
        });
        let turns = turns.collect::<Result<_, SealError>>()?;
        let loaded = Loaded { cursor, records: turns, from_start, trimmed };
        order::check(&loaded, after, &opened)?;
        Ok(loaded)
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: HistoryStore> HistoryStore for Encrypted<S> {
    async fn load(
        &self,
        key: &SessionKey,
        options: impl Into<LoadOptions> + Send,
    ) -> Result<Loaded, StoreError> {
        let options = options.into();
        let loaded = self.inner.load(key, options).await?;
        Ok(self.open_all(key, options.after.as_ref(), loaded)?)
    }

    /// What is noticed of a page is what is noticed of a load that began before it.
    async fn read(&self, key: &SessionKey, options: &ReadOptions) -> Result<RecordPage, StoreError> {
        let page = self.inner.read(key, options).await?;
        let RecordPage { cursor, first, records, next } = page;
        // The order check takes a log that ends with these records and of which all before them is trimmed.
        let newest = records.last().map(Record::id);
        let end = Cursor { count: first + records.len() as u64, newest, ..cursor };
        let loaded = Loaded { cursor: end, records: records.into(), from_start: true, trimmed: first };
        let records = self.open_all(key, None, loaded)?.records.into();
        Ok(RecordPage { cursor, first, records, next })
    }

    async fn append(&self, key: &SessionKey, at: &Cursor, record: &Record) -> Result<Appended, StoreError> {
        let sealed = seal::seal(&self.ring, key, at, record)?;
        self.inner.append(key, at, &sealed).await
    }

    crate::delegate_history_store!(
        |this| this.inner;
        delete, sessions, principals, delete_principal, expire, durability, name, close
    );
}

impl<S: fmt::Debug> fmt::Debug for Encrypted<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encrypted")
            .field("inner", &self.inner)
            .field("ring", &self.ring)
            .field("accepts_plain", &self.accepts_plain)
            .finish_non_exhaustive()
    }
}
