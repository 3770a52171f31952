//! Where turns are kept: the contract of a store, and the stores that come with the crate.
//!
//! [`HistoryStore`] is the contract; its documentation is normative, and the suite in
//! `testing::conformance` (feature `testing`) checks a store against it. `InMemoryStore` is for
//! tests and single processes, `SqliteStore` (feature `sqlite`) for one machine, `RedisStore` (feature `redis`)
//! and `PostgresStore` (feature `postgres`) for several.
//!
//! What stands in a store, and in which versions: [`format`](mod@format).
//!
//! Wrappers go around any store, in this order: [`Cached`] outermost, then `Compressed` (feature `zstd`), then
//! `Encrypted` (feature `encrypt`).

mod cached;
#[cfg(feature = "zstd")]
mod compressed;
mod cursor;
#[cfg(feature = "encrypt")]
pub mod encrypted;
mod erased;
mod error;
#[doc = include_str!("format.md")]
pub mod format {}
mod head;
mod in_memory;
#[cfg(feature = "postgres")]
pub mod postgres;
mod records;
#[cfg(feature = "redis")]
pub mod redis;
mod retention;
#[cfg(feature = "sqlite")]
pub mod sqlite;

pub use cached::{CacheStats, Cached};
#[cfg(feature = "zstd")]
pub use compressed::Compressed;
pub use cursor::{Cursor, Epoch};
#[cfg(feature = "encrypt")]
pub use encrypted::Encrypted;
pub use erased::DynHistoryStore;
pub use error::{StoreError, StoreErrorKind};
pub use in_memory::{InMemoryStats, InMemoryStore};
#[cfg(feature = "postgres")]
pub use postgres::PostgresStore;
pub use records::Records;
#[cfg(feature = "redis")]
pub use redis::RedisStore;
pub use retention::TtlRefresh;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;

use std::{fmt, future::Future, time::SystemTime};

use crate::{
    history::{Record, RecordId},
    session::{Principal, SessionId, SessionKey},
};

/// A store of session logs that all replicas share.
///
/// A session is an append-only log of turns. The store sees turns as opaque records with an id and a parent
/// ([`Record::bytes`], [`Record::id`], [`Record::parent`]) and never rewrites one.
///
/// # Cancel safety
///
/// Any future of this trait may be dropped at any await point. The store stays readable, its connections
/// sound, and no answer to one call may ever be taken for the answer to another. A dropped `append` or
/// `delete` may or may not take effect.
///
/// # Errors
///
/// Every method answers [`StoreError`]. Its kind tells a caller what to do:
/// [`Unavailable`](StoreErrorKind::Unavailable) and [`Timeout`](StoreErrorKind::Timeout) may be tried again
/// (a timeout means *unknown*, not failed: send the same turn again), the others may not.
pub trait HistoryStore: Send + Sync + 'static {
    /// The log after a cursor.
    ///
    /// # Behavior
    ///
    /// - An unknown session is empty: no turns, and a cursor to append the first turn at.
    /// - With `after: None`, or a cursor that the store no longer knows (another epoch; a turn that is not
    ///   at that place), the log from its start, and `from_start` is true.
    /// - With a cursor of this log, only the turns after it, which may be none, and `from_start` is false.
    /// - Records come in commit order.
    /// - An append that was acknowledged before the call began is in the answer (reads come from the
    ///   primary).
    /// - An expired session is unknown.
    fn load(
        &self,
        key: &SessionKey,
        after: Option<&Cursor>,
    ) -> impl Future<Output = Result<Loaded, StoreError>> + Send;

    /// Adds a turn to the log: atomically, durably to the level that [`durability`](Self::durability)
    /// reports, and once, however often it is sent.
    ///
    /// `at` is the cursor of the load that the turn was built on.
    ///
    /// # Behavior
    ///
    /// - A turn whose id is in the log already is [`AlreadyThere`](Appended::AlreadyThere); nothing changes.
    /// - A session that was deleted since `at` was loaded answers [`Gone`](Appended::Gone), whether or not
    ///   it has been started anew since: a turn in flight never resurrects a deleted session.
    /// - A session that merely expired starts a new log with this turn.
    /// - Records that other callers appended since `at` are no conflict: this one goes after them. (A turn
    ///   whose [`Parent`](crate::history::Parent) is `Previous` then continues the newest of them.)
    /// - A turn whose parent is `Turn(id)` is `Gone` unless that id is in the log, also when the log merely
    ///   expired: without its parent the turn is no whole conversation. These checks and the write are one
    ///   atomic step.
    /// - A turn that was made for another session is refused with [`Corrupt`](StoreErrorKind::Corrupt);
    ///   nothing is written.
    /// - The session's time to live starts again.
    /// - The answer may tell the turn before the new one: see [`Appended::Appended`].
    fn append(
        &self,
        key: &SessionKey,
        at: &Cursor,
        turn: &Record,
    ) -> impl Future<Output = Result<Appended, StoreError>> + Send;

    /// Removes every trace of the session; deleting an unknown session is fine.
    ///
    /// # Behavior
    ///
    /// - Records in flight are refused afterwards: see [`append`](Self::append). What the store keeps for
    ///   this (a tombstone) holds nothing of the conversation and expires by itself.
    /// - A load after it finds an empty log, and a turn may be appended at that load's cursor.
    fn delete(&self, key: &SessionKey) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The sessions of one principal, the most recently appended to first.
    ///
    /// # Behavior
    ///
    /// - Deleted and expired sessions are not listed.
    /// - At most `page.limit` of them, after the one that `page.after` names; `next` is `None` on the last
    ///   page.
    /// - A session that is appended to while pages are read moves to the front: it may be missed by the pages
    ///   that follow, and is never listed twice.
    /// - A `page.after` that no listing returned is an error, and not a transient one.
    fn sessions(
        &self,
        scope: &Scope,
        page: &Page,
    ) -> impl Future<Output = Result<SessionPage, StoreError>> + Send;

    /// What an acknowledged append is worth here, read from the store's own settings.
    fn durability(&self) -> impl Future<Output = Result<Durability, StoreError>> + Send;

    /// The store's name in headers, metrics and logs: `redis`, `sqlite`, …
    ///
    /// One lower-case token.
    fn name(&self) -> &'static str;
}

/// The answer to a load.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Where the log ends now.
    pub cursor: Cursor,
    /// The turns after the cursor that was asked for, or all of them.
    pub records: Records,
    /// Whether `records` begins at the start of the log.
    pub from_start: bool,
    /// How many turns at the start of the log are kept no more; 0 for an unknown session. From the start,
    /// `records` holds the `cursor.count - trimmed` that are kept.
    pub trimmed: u64,
}

/// The answer to an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// The turn was added.
    Appended {
        /// The log's end, which is this turn.
        cursor: Cursor,
        /// The turn right before it, as the step that added it saw the log: caches go by it. `None` for the first turn
        /// of a log, and where the store has not looked. Not to be taken from `at` unless that step has compared it:
        /// other turns may have come since, and a server that failed may have lost some.
        before: Option<RecordId>,
    },
    /// The turn had been added before; the cursor stands at the log's end.
    AlreadyThere(Cursor),
    /// The log that the turn belongs to is no more. Nothing was written, and trying again is no use.
    Gone,
}

/// Whose sessions to list.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope {
    /// The deployment or tenant.
    pub namespace: String,
    /// The principal.
    pub principal: Principal,
}

/// Which part of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// At most so many sessions; 1 to 1,000.
    pub limit: usize,
    /// The `next` of the page before; `None` for the first page.
    pub after: Option<String>,
}

/// One page of a listing.
#[derive(Debug, Clone, Default)]
pub struct SessionPage {
    /// The sessions, the most recently appended to first.
    pub sessions: Vec<SessionSummary>,
    /// What [`Page::after`] takes to go on; opaque. `None` on the last page.
    pub next: Option<String>,
}

/// What a listing tells of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSummary {
    /// Its id.
    pub id: SessionId,
    /// How many turns its log holds.
    pub turns: u64,
    /// When its newest turn was appended, by the store's clock.
    pub updated_at: SystemTime,
}

/// What an acknowledged append survives, from nothing to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Durability {
    /// The store would not tell.
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
