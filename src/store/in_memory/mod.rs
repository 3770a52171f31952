mod sessions;
mod stats;

pub use stats::InMemoryStats;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use self::sessions::{Sessions, key_weight, weight};
use super::{
    Appended, Cursor, Durability, Erased, HistoryStore, LoadOptions, Loaded, Page, PrincipalPage,
    ReadOptions, RecordPage, Retention, Scope, SessionPage, StoreError, StoreErrorKind, erasure,
    retention::{self, Clock},
};
use crate::{history::Record, session::SessionKey};

/// A store in this process's memory: for tests, and for single processes that may forget.
///
/// It forgets everything when the process ends, and says so: its durability is
/// [`None`](Durability::None). Clones are handles to the same store.
///
/// # Bounds
///
/// It holds at most [`max_bytes`](Self::with_max_bytes). Past that, expired sessions go first, then whole
/// sessions, the least recently appended to first; each of these is counted ([`stats`](Self::stats)) and
/// logged at `warn`. To a turn in flight a session that went this way is one that expired. A session that
/// fills the store alone loses its oldest turns instead.
///
/// # Defaults
///
/// 256 MiB; the defaults of [`Retention`].
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use tower_session_memory::{
///     session::{Principal, SessionKey},
///     store::{HistoryStore, InMemoryStore, Retention},
/// };
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let store = InMemoryStore::new().with_retention(Retention::new().with_ttl(Duration::from_secs(3600)));
/// let key = SessionKey::new("demo", Principal::anonymous(), "my-session".parse().unwrap());
/// let loaded = store.load(&key, None).await.unwrap();
/// assert!(loaded.records.is_empty(), "an unknown session is empty");
/// # });
/// ```
#[derive(Clone, Default)]
pub struct InMemoryStore {
    settings: Settings,
    shared: Arc<Mutex<Sessions>>,
}

impl InMemoryStore {
    /// An empty store with the default bounds.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The largest number of bytes that the store holds: records, twice the messages that are short (a log holds them
    /// joined, too), and an estimate of 512 bytes for each turn and session. Default: 256 MiB. A record that is larger by itself is refused as too large.
    #[must_use]
    pub fn with_max_bytes(mut self, bytes: u64) -> Self {
        self.settings.max_bytes = bytes;
        self
    }

    /// How long sessions are kept, and how much of each.
    #[must_use]
    pub fn with_retention(mut self, retention: Retention) -> Self {
        self.settings.retention = retention;
        self
    }

    /// Goes by another clock than the system's; for tests.
    #[must_use]
    pub fn with_clock(mut self, now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.settings.clock = Clock::new(now);
        self
    }

    /// What it holds now.
    #[must_use]
    pub fn stats(&self) -> InMemoryStats {
        self.sessions().stats()
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        // Nothing between lock and unlock panics half way through a change, short of a bug of ours.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HistoryStore for InMemoryStore {
    async fn load(
        &self,
        key: &SessionKey,
        options: impl Into<LoadOptions> + Send,
    ) -> Result<Loaded, StoreError> {
        let after = options.into().after;
        let now = self.settings.clock.now();
        let mut sessions = self.sessions();
        let Some(session) = sessions.live(key, now) else {
            return Ok(Loaded::unknown(after.as_ref()));
        };
        let loaded = session.load(after.as_ref());
        let refreshed = self.settings.retention.refreshed(session.expires(), now);
        if let Some(expires) = refreshed.filter(|_| loaded.cursor.count > 0) {
            sessions.expire_at(key, expires);
        }
        Ok(loaded)
    }

    async fn read(&self, key: &SessionKey, options: &ReadOptions) -> Result<RecordPage, StoreError> {
        let now = self.settings.clock.now();
        Ok(self.sessions().live(key, now).map_or_else(RecordPage::unknown, |session| session.read(options)))
    }

    async fn append(&self, key: &SessionKey, at: &Cursor, record: &Record) -> Result<Appended, StoreError> {
        if !record.belongs_to(key.digest()) {
            return Err(StoreError::new(StoreErrorKind::Corrupt));
        }
        if weight(record) + key_weight(key) > self.settings.max_bytes {
            return Err(StoreError::new(StoreErrorKind::TooLarge));
        }
        let now = self.settings.clock.now();
        let mut sessions = self.sessions();
        let answer = sessions.append(key, at, record, now, &self.settings.retention);
        if matches!(answer, Appended::Appended { .. }) {
            sessions.shrink(self.settings.max_bytes, key, now);
        }
        Ok(answer)
    }

    async fn delete(&self, key: &SessionKey) -> Result<(), StoreError> {
        let now = self.settings.clock.now();
        let mut sessions = self.sessions();
        sessions.delete(key, now, &self.settings.retention);
        sessions.shrink(self.settings.max_bytes, key, now);
        Ok(())
    }

    async fn sessions(&self, scope: &Scope, page: &Page) -> Result<SessionPage, StoreError> {
        let before = erasure::place(page, u64::MAX)?;
        let now = self.settings.clock.now();
        Ok(self.sessions().sessions(scope, before, page.size(), now))
    }

    async fn principals(&self, namespace: &str, page: &Page) -> Result<PrincipalPage, StoreError> {
        let before = erasure::place(page, u64::MAX)?;
        let now = self.settings.clock.now();
        Ok(self.sessions().principals(namespace, before, page.size(), now))
    }

    async fn delete_principal(&self, scope: &Scope, page: &Page) -> Result<Erased, StoreError> {
        erasure::is_first_or_further(page)?;
        let now = self.settings.clock.now();
        let most = Erased::sessions_of(page);
        Ok(self.sessions().delete_principal(scope, most, now, &self.settings.retention))
    }

    async fn expire(&self, namespace: &str, age: Duration, page: &Page) -> Result<Erased, StoreError> {
        let after = erasure::place(page, 0)?;
        let before = retention::before(self.settings.clock.now(), age);
        Ok(self.sessions().expire(namespace, before, after, Erased::sessions_of(page)))
    }

    async fn durability(&self) -> Result<Durability, StoreError> {
        Ok(Durability::None)
    }

    fn name(&self) -> &'static str {
        "memory"
    }

    /// Keeps what it holds: there is nothing to give up.
    async fn close(&self) {}
}

impl fmt::Debug for InMemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InMemoryStore")
            .field("settings", &self.settings)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone)]
struct Settings {
    max_bytes: u64,
    retention: Retention,
    clock: Clock,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_bytes: 256 * 1024 * 1024, retention: Retention::default(), clock: Clock::default() }
    }
}
