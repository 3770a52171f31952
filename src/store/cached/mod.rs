//! A wrapper that keeps session logs in memory, and asks the store only for what came since.

mod log;
mod lru;
mod stats;

pub use stats::CacheStats;

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use self::{
    log::{AddedTurn, CachedLog},
    lru::Lru,
};
use super::{
    Appended, Cursor, Erased, HistoryStore, LoadOptions, Loaded, Page, Scope, StoreError, StoreErrorKind,
};
use crate::{
    history::{Record, RecordId},
    session::SessionKey,
};

/// Any store, with a cache of session logs in front of it, so that loading a session costs the turns that are
/// new and not the whole log.
///
/// # It is never stale
///
/// Nothing is answered from memory alone. Every load is one round trip that hands the store the cursor of the
/// log that is kept; the store says what came after it, or that it does not know it. In that case (the
/// session was deleted, expired, or lost turns with its server) the kept log is dropped and the store's is
/// taken from its start, in the same answer. Any number of replicas may cache one store.
///
/// A turn that was appended through this cache is kept at once if the store says [which turn is before
/// it](Appended::Appended), the kept log ends there, and no answer to a load still shares it; otherwise it comes
/// with the next load. The cursor alone would not tell: where a server can lose acknowledged turns, the place before
/// the new one may hold another turn by then. A session's first turn comes with the next load: many have no second.
///
/// # Bounds
///
/// At most [`max_bytes`](Self::with_max_bytes) of memory, counted as what records, their headers and the tables
/// take; past that the logs that were neither loaded nor appended to for longest go. A log that is larger by itself is
/// not kept. A session that another replica deletes, or that expires, leaves this memory when it is loaded next
/// or when room is needed. A deletion through this cache drops it at once, an erasure with its
/// first or last step.
///
/// # Order of wrappers
///
/// Outermost: `Cached<Compressed<Encrypted<S>>>`. Kept turns are then neither unpacked nor decrypted again.
///
/// # Defaults
///
/// 128 MiB.
///
/// # Example
///
/// ```
/// use tower_session_memory::{
///     SessionMemoryLayer,
///     store::{Cached, InMemoryStore},
/// };
///
/// let store = Cached::new(InMemoryStore::new()).with_max_bytes(64 * 1024 * 1024);
/// let layer = SessionMemoryLayer::new(store);
/// # let _ = layer;
/// ```
pub struct Cached<S> {
    inner: S,
    cache: Mutex<Lru>,
}

impl<S> Cached<S> {
    /// A cache of the default size before this store.
    #[must_use]
    pub fn new(inner: S) -> Self {
        Self { inner, cache: Mutex::new(Lru::new(DEFAULT_MAX_BYTES)) }
    }

    /// The largest number of bytes of memory. Default: 128 MiB.
    #[must_use]
    pub fn with_max_bytes(self, bytes: u64) -> Self {
        Self { cache: Mutex::new(Lru::new(bytes)), ..self }
    }

    /// What it holds now.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        self.cache().stats()
    }

    /// Puts a log back with what came after it; `None` if that does not continue it.
    fn extend(
        &self,
        key: &SessionKey,
        log: CachedLog,
        loaded: &Loaded,
        generation: u64,
    ) -> Option<CachedLog> {
        let mut cache = self.cache();
        cache.release(key, &log, generation);
        let log = log.extended(loaded)?;
        cache.put(key, &log, generation, true);
        Some(log)
    }

    /// Adds a turn that was appended to the kept log, if that ends with the turn before it.
    fn keep(&self, key: &SessionKey, turn: &Record, cursor: Cursor, before: RecordId) {
        let added = AddedTurn { cursor, before };
        if self.cache().peek(key).is_some_and(|log| log.is_followed_by(&added)) {
            // It may be large: it is copied outside of the lock.
            let turn = turn.detached();
            self.cache().change(key, |log| log.push(turn, &added));
        }
    }

    fn cache(&self) -> MutexGuard<'_, Lru> {
        // Nothing between lock and unlock panics half way through a change, short of a bug of ours.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: HistoryStore> HistoryStore for Cached<S> {
    async fn load(
        &self,
        key: &SessionKey,
        options: impl Into<LoadOptions> + Send,
    ) -> Result<Loaded, StoreError> {
        let options = options.into();
        let after = options.after.as_ref();
        let (known, generation) = self.cache().get(key);
        let cursor = known.as_ref().map(|log| log.cursor());
        let loaded = self.inner.load(key, LoadOptions { after: cursor.or(options.after) }).await?;
        let whole = match known {
            // The end of a log alone cannot be kept.
            None if !loaded.from_start => return Ok(loaded),
            Some(log) if !loaded.from_start => match self.extend(key, log, &loaded, generation) {
                Some(log) => return Ok(log.after(after)),
                // What the store says came after the cursor does not. Its whole log decides.
                None => self.inner.load(key, LoadOptions { after: None }).await?,
            },
            Some(log) => {
                // What the store lost, it may have had more of than it has now.
                self.cache().release(key, &log, generation);
                loaded
            }
            None => loaded,
        };
        let log = CachedLog::whole(&whole).filter(|_| whole.from_start);
        let log = log.ok_or_else(|| StoreError::new(StoreErrorKind::Corrupt))?;
        self.cache().put(key, &log, generation, false);
        Ok(log.after(after))
    }

    async fn append(&self, key: &SessionKey, at: &Cursor, record: &Record) -> Result<Appended, StoreError> {
        let answer = self.inner.append(key, at, record).await?;
        match answer {
            // What comes packed, a wrapper between this and the store may unpack for a load.
            Appended::Appended { cursor, before: Some(before) } if record.envelope().is_none() => {
                self.keep(key, record, cursor, before);
            }
            Appended::Gone => self.cache().remove(key),
            Appended::Appended { .. } | Appended::AlreadyThere(_) => {}
        }
        Ok(answer)
    }

    async fn delete(&self, key: &SessionKey) -> Result<(), StoreError> {
        self.cache().remove(key);
        let deleted = self.inner.delete(key).await;
        // A load that the store answered before the deletion may have come between.
        self.cache().remove(key);
        deleted
    }

    async fn delete_principal(&self, scope: &Scope, page: &Page) -> Result<Erased, StoreError> {
        let is_of = |key: &SessionKey, _: &CachedLog| {
            key.namespace() == scope.namespace && key.principal() == &scope.principal
        };
        // A walk over the whole cache costs the traffic beside it: not for each step.
        if page.after.is_none() {
            self.cache().remove_all(is_of);
        }
        let erased = self.inner.delete_principal(scope, page).await;
        if is_last(&erased) {
            self.cache().remove_all(is_of);
        }
        erased
    }

    async fn expire(&self, namespace: &str, age: Duration, page: &Page) -> Result<Erased, StoreError> {
        let is_old = |key: &SessionKey, log: &CachedLog| {
            let oldest = SystemTime::now().checked_sub(age);
            key.namespace() == namespace && oldest.is_some_and(|oldest| log.is_older_than(oldest))
        };
        let erased = self.inner.expire(namespace, age, page).await;
        if is_last(&erased) {
            self.cache().remove_all(is_old);
        }
        erased
    }

    crate::delegate_history_store!(
        |this| this.inner;
        read, sessions, principals, durability, name, close
    );
}

/// Whether a step of an erasure was the last, as far as is known.
fn is_last(erased: &Result<Erased, StoreError>) -> bool {
    erased.as_ref().map_or(true, |erased| erased.next.is_none())
}

impl<S: fmt::Debug> fmt::Debug for Cached<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cached")
            .field("inner", &self.inner)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

const DEFAULT_MAX_BYTES: u64 = 128 * 1024 * 1024;
