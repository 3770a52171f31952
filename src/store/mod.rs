//! Stores of session logs: the contract, and the stores that come with the crate.
//!
//! [`HistoryStore`] is the contract; its documentation is normative, and the suite in
//! `testing::conformance` (feature `testing`) checks a store against it. `InMemoryStore` is for
//! tests and single processes, `SqliteStore` (feature `sqlite`) for one machine, `RedisStore` (feature `redis`)
//! and `PostgresStore` (feature `postgres`) for several.
//!
//! All stores are set up alike: `builder` takes the place (a path, a URL), `with_retention` takes the one
//! [`Retention`], `open` opens, and [`close`](HistoryStore::close) closes. The store in memory needs no opening:
//! `new` makes one.
//!
//! What stands in a store, and in which versions: [`format`](mod@format).
//!
//! Wrappers go around any store, in this order: [`Cached`] outermost, then `Compressed` (feature `zstd`), then
//! `Encrypted` (feature `encrypt`). An `Arc` of a store is a store, and so is an `Arc<dyn DynHistoryStore>`.

mod cached;
#[cfg(feature = "zstd")]
mod compressed;
mod cursor;
mod delegate;
mod dyn_store;
#[cfg(feature = "encrypt")]
pub mod encrypted;
mod erasure;
mod error;
#[doc = include_str!("format.md")]
pub mod format {}
mod head;
mod in_memory;
mod listing;
mod loaded;
#[cfg(feature = "postgres")]
pub mod postgres;
mod records;
#[cfg(feature = "redis")]
pub mod redis;
mod retention;
#[cfg(feature = "sqlite")]
pub mod sqlite;
mod trim;

pub use cached::{CacheStats, Cached};
#[cfg(feature = "zstd")]
pub use compressed::Compressed;
pub use cursor::{Cursor, Epoch};
pub use dyn_store::DynHistoryStore;
#[cfg(feature = "encrypt")]
pub use encrypted::Encrypted;
pub use erasure::Erased;
pub use error::{StoreError, StoreErrorKind};
pub use in_memory::{InMemoryStats, InMemoryStore};
pub use listing::{Page, PrincipalPage, PrincipalSummary, Scope, SessionPage, SessionSummary};
pub use loaded::{LoadOptions, Loaded, ReadOptions, RecordPage};
#[cfg(feature = "postgres")]
pub use postgres::PostgresStore;
pub use records::Records;
#[cfg(feature = "redis")]
pub use redis::RedisStore;
pub use retention::{Retention, TtlRefresh};
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;

use std::{fmt, future::Future, time::Duration};

use crate::{
    history::{Record, RecordId},
    session::SessionKey,
};

/// A store of session logs that all replicas share.
///
/// A session is an append-only log of records. The store sees them as opaque bytes with an id and a parent
/// ([`Record::bytes`], [`Record::id`], [`Record::parent`]) and never rewrites one.
///
/// # Cancel safety
///
/// Any future of this trait may be dropped at any await point. The store stays readable, its connections
/// sound, and no answer to one call may ever be taken for the answer to another. A dropped `append`,
/// `delete`, `delete_principal` or `expire` may or may not take effect, and may be sent again.
///
/// # Errors
///
/// Every method answers [`StoreError`]. Its kind decides what a caller does:
/// [`Unavailable`](StoreErrorKind::Unavailable) and [`Timeout`](StoreErrorKind::Timeout) may be tried again
/// (a timeout means *unknown*, not failed: send the same record again), the others may not.
///
/// # Pages
///
/// Listings and erasures go in steps, each bounded by a [`Page`]: at most `page.limit` entries, after the place
/// that `page.after` names. The answer's `next` is what `after` takes to go on, and `None` at the end. A page
/// may hold fewer entries than asked for, or none, and still name a next one. An `after` that no answer named is an
/// error, and not a transient one.
pub trait HistoryStore: Send + Sync {
    /// The log after a cursor.
    ///
    /// # Behavior
    ///
    /// - An unknown session is empty: no records, and a cursor to append the first record at.
    /// - With `after: None`, or a cursor that the store no longer knows (another epoch; a record that is not
    ///   at that place), the log from its start, and `from_start` is true.
    /// - With a cursor of this log, only the records after it, which may be none, and `from_start` is false.
    /// - Records come in commit order.
    /// - An append that was acknowledged before the call began is in the answer (reads come from the
    ///   primary).
    /// - An expired session is unknown.
    fn load(
        &self,
        key: &SessionKey,
        options: impl Into<LoadOptions> + Send,
    ) -> impl Future<Output = Result<Loaded, StoreError>> + Send;

    /// Records of the log by their place, oldest first: for export, recall and inspection.
    ///
    /// # Behavior
    ///
    /// - The answer begins with the record after the first `options.from` ones, or with the oldest that is kept.
    /// - It holds at most `options.max_records` records of together at most `options.max_bytes`, and at least one if
    ///   there is one, however large.
    /// - `next` is the `from` of the page that follows, and `None` when the log's end is reached.
    /// - It puts no expiry off, whatever the store's [`TtlRefresh`] is.
    /// - An unknown or expired session answers an empty page.
    fn read(
        &self,
        key: &SessionKey,
        options: &ReadOptions,
    ) -> impl Future<Output = Result<RecordPage, StoreError>> + Send;

    /// Adds a record to the log: atomically, durably to the level that [`durability`](Self::durability)
    /// reports, and once, however many times it is sent.
    ///
    /// `at` is the cursor of the load that the record was built on.
    ///
    /// # Behavior
    ///
    /// - A record whose id is among the newest [`Retention::REMEMBERED`] of the log, trimmed ones included, is
    ///   [`AlreadyThere`](Appended::AlreadyThere); nothing changes. A store may recognise older ones too.
    /// - A session that was deleted since `at` was loaded answers [`Gone`](Appended::Gone), whether or not
    ///   it has been started anew since: a record in flight never resurrects a deleted session.
    /// - A session that merely expired starts a new log with this record.
    /// - Records that other callers appended since `at` are no conflict: this one goes after them. (A record
    ///   whose [`Parent`](crate::history::Parent) is `Previous` then continues the newest of them.)
    /// - A record whose parent is `Turn(id)` is `Gone` unless that id is in the log, also when the log merely
    ///   expired: without its parent the record is no whole conversation. These checks and the write are one
    ///   atomic step.
    /// - A record that was made for another session is refused with [`Corrupt`](StoreErrorKind::Corrupt);
    ///   nothing is written.
    /// - The session's time to live starts again.
    /// - Past the bounds of the store's [`Retention`] the oldest records go, whole tool exchanges at a time, and never
    ///   the newest record.
    /// - The answer may name the record before the new one: see [`Appended::Appended`].
    fn append(
        &self,
        key: &SessionKey,
        at: &Cursor,
        record: &Record,
    ) -> impl Future<Output = Result<Appended, StoreError>> + Send;

    /// Removes every trace of the session; deleting an unknown session is fine.
    ///
    /// # Behavior
    ///
    /// - Records in flight are refused afterwards: see [`append`](Self::append). What the store keeps for
    ///   this (a tombstone) holds nothing of the conversation and expires by itself.
    /// - A load after it finds an empty log, and a record may be appended at that load's cursor.
    fn delete(&self, key: &SessionKey) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The sessions of one principal, the most recently appended to first.
    ///
    /// # Behavior
    ///
    /// - Deleted and expired sessions are not listed.
    /// - A session that is appended to while pages are read moves to the front: it may be missed by the pages
    ///   that follow, and is never listed twice.
    /// - Model and title are those of the newest record that names one, as far as the store can read its records: not
    ///   behind `Compressed` and `Encrypted`. A store may forget a name when the record that gave it is trimmed.
    fn sessions(
        &self,
        scope: &Scope,
        page: &Page,
    ) -> impl Future<Output = Result<SessionPage, StoreError>> + Send;

    /// The principals that have sessions in a namespace, the most recently active first.
    ///
    /// # Behavior
    ///
    /// - A principal whose sessions are all deleted or expired is not listed.
    /// - A principal that becomes active while pages are read moves to the front: it may be missed by the pages that
    ///   follow, and is never listed twice.
    /// - A principal whose newest session is deleted may keep its place in the order: its `updated_at` is then earlier than
    ///   the place says.
    fn principals(
        &self,
        namespace: &str,
        page: &Page,
    ) -> impl Future<Output = Result<PrincipalPage, StoreError>> + Send;

    /// Erases the sessions of one principal, in steps: call it again with [`next`](Erased::next) until that is `None`.
    ///
    /// # Behavior
    ///
    /// - Each session is erased as [`delete`](Self::delete) does it, tombstone included: records in flight are refused.
    /// - When `next` is `None`, every session is gone that was there when the first step began. One that began
    ///   meanwhile may be gone or not.
    /// - A step erases at most `page.limit` sessions and at most 64. It holds no lock and no transaction over more.
    /// - A step that was dropped or failed keeps what it erased. Begin again at any step or at the first.
    fn delete_principal(
        &self,
        scope: &Scope,
        page: &Page,
    ) -> impl Future<Output = Result<Erased, StoreError>> + Send;

    /// Erases the sessions of a namespace whose newest record was appended longer ago than `age`, by the store's clock,
    /// in steps: call it again with [`next`](Erased::next) until that is `None`.
    ///
    /// # Behavior
    ///
    /// - Each session is as one that expired: a record in flight starts a new log.
    /// - A session that is appended to before its step is reached stays, whole: the look at its age and the erasure
    ///   are one atomic step.
    /// - The bounds of a step, and what a dropped one leaves, are those of
    ///   [`delete_principal`](Self::delete_principal).
    fn expire(
        &self,
        namespace: &str,
        age: Duration,
        page: &Page,
    ) -> impl Future<Output = Result<Erased, StoreError>> + Send;

    /// What an acknowledged append is worth here, read from the store's own settings.
    fn durability(&self) -> impl Future<Output = Result<Durability, StoreError>> + Send;

    /// The store's name in headers, metrics and logs: `redis`, `sqlite`, …
    ///
    /// One lower-case token.
    fn name(&self) -> &'static str;

    /// Finishes what was handed to the store and gives up its connections, files and threads. Calls that come later,
    /// through any handle, may answer an error.
    ///
    /// Not needed for durability: an acknowledged record is as durable as it gets.
    ///
    /// # Cancel safety
    ///
    /// When it is dropped the store closes all the same. It may be called again.
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// The answer to an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// The record was added.
    Appended {
        /// The log's end, which is this record.
        cursor: Cursor,
        /// The record right before it, as the step that added it saw the log: caches go by it. `None` for the first
        /// record of a log, and where the store has not looked. Not to be taken from `at` unless that step has
        /// compared it: other records may have come since, and a server that failed may have lost some.
        before: Option<RecordId>,
    },
    /// The record had been added before; the cursor stands at the log's end.
    AlreadyThere(Cursor),
    /// The log that the record belongs to is no more. Nothing was written, and trying again is no use.
    Gone,
}

/// What an acknowledged append survives, from nothing to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Durability {
    /// The store does not say.
    Unknown,
    /// Nothing: it is lost when the process ends.
    None,
    /// The death of the process, but not of the machine.
    Process,
    /// The death of the process; at most about the last second is lost with the machine.
    AboutOneSecond,
    /// The death of the machine: it is on disk.
    Fsync,
    /// The death of the machine and its disk: it is on another machine too.
    Replicated,
}

impl Durability {
    /// The name in settings, logs and headers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::None => "none",
            Self::Process => "process",
            Self::AboutOneSecond => "about-1s",
            Self::Fsync => "fsync",
            Self::Replicated => "replicated",
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
