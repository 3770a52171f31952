//! A store in one SQLite file: the embedded default, for one machine and several processes.
//!
//! SQLite is bundled. The file is in WAL mode; one thread writes, and puts the turns that wait into one
//! transaction (group commit), so that many sessions share each sync to disk. Several more read, none of them
//! waiting for the writer. Several processes may use one file on a local disk at once; WAL does not work over
//! a network share.
//!
//! A thread of its own moves a write-ahead log of 16 MiB into the file, while turns are taken on. At 64 MiB the writer
//! waits for that: the write-ahead log grows to about 64 MiB, and what one transaction or one long read holds. It becomes
//! longer only while another program reads the file in a transaction that does not end.
//!
//! No write and no long read blocks the async runtime. A load that finds little new is answered on the caller's thread: a
//! few pages that are nearly always in memory, in some microseconds, where handing it to another thread and back takes
//! several times as long. If one had to wait for the disk (over a millisecond), loads go to the reading threads for a
//! second, and for longer each time that it happens again, up to a minute.
//!
//! ```
//! use tower_session_memory::{
//!     session::{Principal, SessionKey},
//!     store::{Durability, HistoryStore, SqliteStore},
//! };
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path().join("session-memory.db");
//! let store = SqliteStore::open(path).await.unwrap();
//! assert_eq!(store.durability().await.unwrap(), Durability::Fsync);
//!
//! let key = SessionKey::new("demo", Principal::anonymous(), "my-session".parse().unwrap());
//! let loaded = store.load(&key, None).await.unwrap();
//! assert!(loaded.records.is_empty(), "an unknown session is empty");
//!
//! store.close().await; // every acknowledged turn is on disk with or without this
//! # });
//! ```
//!
//! # When the disk fails
//!
//! A full disk refuses appends as [unavailable](crate::store::StoreErrorKind::Unavailable); they succeed again
//! when there is room. After a sync to disk that *failed* the store closes itself and refuses everything until
//! the process is started again: what was written before may be lost although later syncs succeed. It does the
//! same when its file was deleted or replaced: to restore a copy, stop the process first.
//!
//! # What is in the file
//!
//! Turns as they are recorded, and namespaces, principals and session ids in the clear. It is created readable
//! by its owner only. What is deleted is overwritten in the file; copies may stand in the write-ahead log
//! beside it until that is overwritten in turn. Space of deleted and expired sessions is used again; the file
//! does not shrink by itself.

mod chain;
mod checkpoints;
mod error;
mod file;
mod inline_reader;
mod log;
mod options;
mod queue;
mod reader;
mod schema;
mod session_row;
mod setup;
mod transaction;
mod writer;

pub use error::{OpenError, OpenProblem, SqliteError};
pub use options::SqliteBuilder;
pub use setup::Synchronous;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{oneshot, watch};

use self::{
    inline_reader::InlineReader,
    log::ExpiryPlace,
    queue::{Queue, closed},
    reader::{Question, Read},
    writer::{Done, Work, Write},
};
use super::{
    Appended, Cursor, Durability, Erased, HistoryStore, LoadOptions, Loaded, Page, PrincipalPage,
    ReadOptions, RecordPage, Scope, SessionPage, StoreError, StoreErrorKind, erasure,
    retention::{self, Clock},
};
use crate::{history::Record, session::SessionKey};

/// A store in one SQLite file. The [module](self) tells how it works; [`SqliteStore::builder`] has the settings.
///
/// Clones are handles to the same store. When the last one is dropped the store finishes what was handed to
/// it and closes, on its own threads; [`close`](Self::close) waits for that.
#[derive(Clone)]
pub struct SqliteStore {
    handle: Arc<Handle>,
}

struct Handle {
    writes: Arc<Queue<Write>>,
    reads: Arc<Queue<Read>>,
    inline: Arc<InlineReader>,
    clock: Clock,
    durability: Durability,
    patience: Duration,
    /// The writer holds the receiver until it is done.
    running: watch::Sender<()>,
}

impl SqliteStore {
    async fn write(&self, work: Work) -> Result<Done, StoreError> {
        let (answer, answered) = oneshot::channel();
        let write = Write { work, deadline: self.handle.deadline(), answer };
        self.handle.writes.push(write).await.map_err(|_| closed())?;
        // No answer: the writer is gone, perhaps after it committed.
        answered.await.unwrap_or_else(|_| Err(StoreError::new(StoreErrorKind::Timeout)))
    }

    async fn erase(&self, work: Work) -> Result<Erased, StoreError> {
        match self.write(work).await? {
            Done::Erased(erased) => Ok(erased),
            Done::Append(_) | Done::Change => Err(StoreError::new(StoreErrorKind::Corrupt)),
        }
    }

    async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Question,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let read = Read { question: question(answer), deadline: self.handle.deadline() };
        self.handle.reads.push(read).await.map_err(|_| closed())?;
        answered.await.unwrap_or_else(|_| Err(closed()))
    }
}

impl HistoryStore for SqliteStore {
    async fn load(
        &self,
        key: &SessionKey,
        options: impl Into<LoadOptions> + Send,
    ) -> Result<Loaded, StoreError> {
        let after = options.into().after;
        let found = match self.handle.inline.load(key, after.as_ref()) {
            Some(found) => found,
            None => {
                let key = key.clone();
                self.ask(|answer| Question::Load { key, after, answer }).await?
            }
        };
        if let Some(expires) = found.refresh
            && let Err(error) = self.write(Work::Refresh { key: key.clone(), expires }).await
        {
            tracing::warn!(%error, "a load could not put off its session's expiry");
        }
        Ok(found.loaded)
    }

    async fn read(&self, key: &SessionKey, options: &ReadOptions) -> Result<RecordPage, StoreError> {
        let (key, options) = (key.clone(), *options);
        self.ask(|answer| Question::Read { key, options, answer }).await
    }

    async fn append(&self, key: &SessionKey, at: &Cursor, record: &Record) -> Result<Appended, StoreError> {
        if !record.belongs_to(key.digest()) {
            return Err(StoreError::new(StoreErrorKind::Corrupt));
        }
        let work = Work::Append { key: key.clone(), at: *at, turn: record.clone() };
        match self.write(work).await? {
            Done::Append(answer) => Ok(answer),
            Done::Erased(_) | Done::Change => Err(StoreError::new(StoreErrorKind::Corrupt)),
        }
    }

    async fn delete(&self, key: &SessionKey) -> Result<(), StoreError> {
        self.write(Work::Delete { key: key.clone() }).await.map(|_| ())
    }

    async fn sessions(&self, scope: &Scope, page: &Page) -> Result<SessionPage, StoreError> {
        let (scope, page) = (scope.clone(), page.clone());
        self.ask(|answer| Question::Sessions { scope, page, answer }).await
    }

    async fn principals(&self, namespace: &str, page: &Page) -> Result<PrincipalPage, StoreError> {
        let (namespace, page) = (namespace.to_owned(), page.clone());
        self.ask(|answer| Question::Principals { namespace, page, answer }).await
    }

    async fn delete_principal(&self, scope: &Scope, page: &Page) -> Result<Erased, StoreError> {
        erasure::is_first_or_further(page)?;
        self.erase(Work::DeletePrincipal { scope: scope.clone(), most: most(page) }).await
    }

    async fn expire(&self, namespace: &str, age: Duration, page: &Page) -> Result<Erased, StoreError> {
        let after = ExpiryPlace::of(page)?;
        let before = retention::before(self.handle.clock.now(), age);
        let (namespace, most) = (namespace.to_owned(), most(page));
        self.erase(Work::Expire { namespace, before, after, most }).await
    }

    async fn durability(&self) -> Result<Durability, StoreError> {
        Ok(self.handle.durability)
    }

    fn name(&self) -> &'static str {
        "sqlite"
    }

    /// Finishes what was handed to the store, moves the write-ahead log into the file, and closes it.
    async fn close(&self) {
        self.handle.close();
        self.handle.running.closed().await;
    }
}

/// Sessions that one transaction erases, since appends wait for it: with 64 their p99 was seven times what it is alone.
fn most(page: &Page) -> usize {
    page.size().min(ERASED_AT_ONCE)
}

const ERASED_AT_ONCE: usize = 16;

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("durability", &self.handle.durability).finish_non_exhaustive()
    }
}

impl Handle {
    fn deadline(&self) -> Instant {
        Instant::now() + self.patience
    }

    /// What is in the queues is still done.
    fn close(&self) {
        self.inline.close();
        self.reads.close();
        self.writes.close();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}
