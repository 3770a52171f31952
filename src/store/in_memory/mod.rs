mod sessions;

use std::{
    fmt,
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use self::sessions::{Sessions, key_weight, weight};
use super::{
    Appended, Cursor, Durability, Epoch, HistoryStore, Loaded, Page, Scope, SessionPage, StoreError,
    StoreErrorKind, TtlRefresh,
    retention::{Clock, Retention},
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
/// 256 MiB; sessions expire 30 days after their newest turn; any number of turns a session; what a deletion
/// leaves behind expires after a day.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use tower_session_memory::{
///     session::{Principal, SessionKey},
///     store::{HistoryStore, InMemoryStore},
/// };
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let store = InMemoryStore::new().with_ttl(Duration::from_secs(3600));
/// let key = SessionKey::new("demo", Principal::anonymous(), "my-session".parse().unwrap());
/// let loaded = store.load(&key, None).await.unwrap();
/// assert!(loaded.turns.is_empty(), "an unknown session is empty");
/// # });
/// ```
#[derive(Clone, Default)]
pub struct InMemoryStore {
    settings: Settings,
    shared: Arc<Mutex<Sessions>>,
}

/// What an [`InMemoryStore`] holds now, and what it dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct InMemoryStats {
    /// Sessions, those included that expired and are not yet removed.
    pub sessions: u64,
    /// Bytes of the records and an estimate of what goes with them.
    pub bytes: u64,
    /// Live sessions that were dropped whole to stay within the bound.
    pub evicted_sessions: u64,
    /// Turns that were trimmed from a session that fills the store alone.
    pub evicted_turns: u64,
}

impl InMemoryStore {
    /// An empty store with the default bounds.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Holds at most so many bytes: records, twice the messages that are short (a log holds them joined, too), and an
    /// estimate of 512 bytes for each turn and session.
    /// Default: 256 MiB. A record that is larger by itself is refused as too large.
    #[must_use]
    pub fn with_max_bytes(mut self, bytes: u64) -> Self {
        self.settings.max_bytes = bytes;
        self
    }

    /// Sessions expire so long after their newest turn. Default: 30 days.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.settings.retention.ttl = ttl;
        self
    }

    /// Whether loads put off the expiry too. Default: only appends do.
    #[must_use]
    pub fn with_ttl_refresh(mut self, refresh: TtlRefresh) -> Self {
        self.settings.retention.refresh = refresh;
        self
    }

    /// For so long after a deletion, turns that were in flight are refused. Default: one day. Longer than any
    /// reply and its retries take.
    #[must_use]
    pub fn with_tombstone_ttl(mut self, ttl: Duration) -> Self {
        self.settings.retention.tombstone_ttl = ttl;
        self
    }

    /// Keeps only the newest turns of each session. Default: all.
    #[must_use]
    pub fn with_max_turns(mut self, turns: NonZeroUsize) -> Self {
        self.settings.retention.max_turns = Some(turns);
        self
    }

    /// Goes by another clock than the system's; for tests.
    #[must_use]
    pub fn with_clock(mut self, now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.settings.retention.clock = Clock::new(now);
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
    async fn load(&self, key: &SessionKey, after: Option<&Cursor>) -> Result<Loaded, StoreError> {
        let retention = &self.settings.retention;
        let now = retention.clock.now();
        let mut sessions = self.sessions();
        let Some(session) = sessions.live(key, now) else {
            let cursor = Cursor::start_of(Epoch::UNBORN);
            return Ok(Loaded {
                cursor,
                records: Vec::new().into(),
                from_start: after != Some(&cursor),
                trimmed: 0,
            });
        };
        let loaded = session.load(after);
        let refreshed = retention.refreshed(session.expires(), now);
        if let Some(expires) = refreshed.filter(|_| loaded.cursor.count > 0) {
            sessions.expire_at(key, expires);
        }
        Ok(loaded)
    }

    async fn append(&self, key: &SessionKey, at: &Cursor, turn: &Record) -> Result<Appended, StoreError> {
        if !turn.belongs_to(key.digest()) {
            return Err(StoreError::new(StoreErrorKind::Corrupt));
        }
        if weight(turn) + key_weight(key) > self.settings.max_bytes {
            return Err(StoreError::new(StoreErrorKind::TooLarge));
        }
        let now = self.settings.retention.clock.now();
        let mut sessions = self.sessions();
        let answer = sessions.append(key, at, turn, now, &self.settings.retention);
        if matches!(answer, Appended::Appended { .. }) {
            sessions.shrink(self.settings.max_bytes, key, now);
        }
        Ok(answer)
    }

    async fn delete(&self, key: &SessionKey) -> Result<(), StoreError> {
        let now = self.settings.retention.clock.now();
        let mut sessions = self.sessions();
        sessions.delete(key, now, &self.settings.retention);
        sessions.shrink(self.settings.max_bytes, key, now);
        Ok(())
    }

    async fn sessions(&self, scope: &Scope, page: &Page) -> Result<SessionPage, StoreError> {
        let before = page.after.as_deref().map_or(Ok(u64::MAX), str::parse);
        let before = before.map_err(|error| StoreError::with_source(StoreErrorKind::Other, error))?;
        let now = self.settings.retention.clock.now();
        Ok(self.sessions().page(scope, before, page.limit.clamp(1, 1000), now))
    }

    async fn durability(&self) -> Result<Durability, StoreError> {
        Ok(Durability::None)
    }

    fn name(&self) -> &'static str {
        "memory"
    }
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
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_bytes: 256 * 1024 * 1024, retention: Retention::default() }
    }
}
