use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    fmt,
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use super::{
    Appended, Cursor, Durability, Epoch, HistoryStore, Loaded, Page, Scope, SessionPage, SessionSummary,
    StoreError, StoreErrorKind, TtlRefresh,
    head::{Head, Place},
    retention::{Clock, Retention, system_time},
};
use crate::{
    history::{Parent, Turn, TurnId},
    session::SessionKey,
};

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

    /// Holds at most so many bytes: records, and an estimate of 512 bytes for each turn and session.
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
        let sessions = self.sessions();
        InMemoryStats { sessions: sessions.by_key.len() as u64, ..sessions.stats }
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
            return Ok(Loaded { cursor, turns: Vec::new(), from_start: after != Some(&cursor) });
        };
        let loaded = session.load(after);
        let expires = session.expires;
        if loaded.cursor.count > 0
            && let Some(expires) = retention.refreshed(expires, now)
        {
            sessions.expire_at(key, expires);
        }
        Ok(loaded)
    }

    async fn append(&self, key: &SessionKey, at: &Cursor, turn: &Turn) -> Result<Appended, StoreError> {
        if !turn.belongs_to(key.digest()) {
            return Err(StoreError::new(StoreErrorKind::Corrupt));
        }
        if weight(turn) + key_weight(key) > self.settings.max_bytes {
            return Err(StoreError::new(StoreErrorKind::TooLarge));
        }
        let now = self.settings.retention.clock.now();
        let mut sessions = self.sessions();
        let answer = sessions.append(key, at, turn, now, &self.settings.retention)?;
        if matches!(answer, Appended::Appended(_)) {
            sessions.shrink(self.settings.max_bytes, key, now);
        }
        Ok(answer)
    }

    async fn delete(&self, key: &SessionKey) -> Result<(), StoreError> {
        let now = self.settings.retention.clock.now();
        let tombstone = Session::new(Head::tombstone().map_err(no_randomness)?);
        let mut sessions = self.sessions();
        sessions.remove(key);
        sessions.insert(key, tombstone, now, self.settings.retention.tombstone_expiry(now));
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

#[derive(Default)]
struct Sessions {
    by_key: HashMap<SessionKey, Session>,
    /// By [`Session::touched`], which is unique.
    by_touch: BTreeMap<u64, SessionKey>,
    /// By expiry and [`Session::touched`].
    by_expiry: BTreeSet<(i64, u64)>,
    last_touch: u64,
    stats: InMemoryStats,
}

/// A log, or a tombstone, which is a log without turns.
struct Session {
    head: Head,
    turns: VecDeque<Turn>,
    /// Ids of trimmed turns, the newest last.
    forgotten: VecDeque<TurnId>,
    /// Ids of `turns` and `forgotten`.
    ids: HashSet<TurnId>,
    /// Counts the changes of the whole store; the order of listings and evictions.
    touched: u64,
    updated: i64,
    expires: i64,
    bytes: u64,
}

impl Sessions {
    fn live(&self, key: &SessionKey, now: i64) -> Option<&Session> {
        self.by_key.get(key).filter(|session| session.expires > now)
    }

    fn append(
        &mut self,
        key: &SessionKey,
        at: &Cursor,
        turn: &Turn,
        now: i64,
        retention: &Retention,
    ) -> Result<Appended, StoreError> {
        if let Some(session) = self.live(key, now) {
            if session.ids.contains(&turn.id()) {
                return Ok(Appended::AlreadyThere(session.head.cursor()));
            }
            if !session.head.accepts(at) || !session.has_parent_of(turn) {
                return Ok(Appended::Gone);
            }
        } else if matches!(turn.parent(), Parent::Turn(_)) {
            return Ok(Appended::Gone);
        }
        let mut session = match self.remove(key).filter(|session| session.expires > now) {
            Some(session) => session,
            None => Session::new(Head::fresh().map_err(no_randomness)?),
        };
        session.push(turn.clone());
        session.trim(session.head.excess(retention.max_turns));
        let cursor = session.head.cursor();
        self.insert(key, session, now, retention.session_expiry(now));
        Ok(Appended::Appended(cursor))
    }

    /// Puts a session in as the most recently changed.
    fn insert(&mut self, key: &SessionKey, mut session: Session, now: i64, expires: i64) {
        self.last_touch += 1;
        session.touched = self.last_touch;
        session.updated = now;
        session.expires = expires;
        self.stats.bytes += session.bytes + key_weight(key);
        self.by_touch.insert(session.touched, key.clone());
        self.by_expiry.insert((session.expires, session.touched));
        self.by_key.insert(key.clone(), session);
    }

    fn remove(&mut self, key: &SessionKey) -> Option<Session> {
        let session = self.by_key.remove(key)?;
        self.by_touch.remove(&session.touched);
        self.by_expiry.remove(&(session.expires, session.touched));
        self.stats.bytes -= session.bytes + key_weight(key);
        Some(session)
    }

    fn expire_at(&mut self, key: &SessionKey, expires: i64) {
        if let Some(session) = self.by_key.get_mut(key) {
            self.by_expiry.remove(&(session.expires, session.touched));
            session.expires = expires;
            self.by_expiry.insert((session.expires, session.touched));
        }
    }

    /// Goes back below the bound, and removes some of what expired anyway. `keep` is the session that was
    /// just changed.
    fn shrink(&mut self, max_bytes: u64, keep: &SessionKey, now: i64) {
        let mut swept = 0;
        while let Some(&(expires, touched)) = self.by_expiry.first()
            && expires <= now
            && (swept < SWEPT_PER_CHANGE || self.stats.bytes > max_bytes)
        {
            let key = self.by_touch.get(&touched).cloned();
            key.and_then(|key| self.remove(&key));
            swept += 1;
        }
        let evicted = self.stats.evicted_sessions;
        while self.stats.bytes > max_bytes
            && let Some(key) = self.by_touch.values().next().filter(|key| *key != keep).cloned()
        {
            self.remove(&key);
            self.stats.evicted_sessions += 1;
        }
        let evicted = self.stats.evicted_sessions - evicted;
        if evicted > 0 {
            tracing::warn!(evicted, max_bytes, "the in-memory session store is full; sessions were dropped");
        }
        if self.stats.bytes > max_bytes {
            self.trim_alone(max_bytes, keep);
        }
    }

    /// Drops the oldest turns of the only session that is left.
    fn trim_alone(&mut self, max_bytes: u64, key: &SessionKey) {
        let mut over = self.stats.bytes - max_bytes;
        let Some(session) = self.by_key.get_mut(key) else { return };
        let before = session.bytes;
        let mut trimmed = 0;
        for turn in session.turns.iter().rev().skip(1).rev() {
            if over == 0 {
                break;
            }
            over = over.saturating_sub(weight(turn) - FORGOTTEN_WEIGHT);
            trimmed += 1;
        }
        session.trim(trimmed);
        self.stats.bytes -= before - session.bytes;
        self.stats.evicted_turns += trimmed;
        tracing::warn!(
            trimmed,
            max_bytes,
            "one session fills the in-memory session store; its oldest turns were dropped"
        );
    }

    fn page(&self, scope: &Scope, before: u64, limit: usize, now: i64) -> SessionPage {
        let mut found = self.by_touch.range(..before).rev().filter_map(|(_, key)| {
            let listed = key.principal() == &scope.principal && key.namespace() == scope.namespace;
            let session = self.live(key, now).filter(|session| listed && session.head.count > 0)?;
            Some((session, key))
        });
        let mut page = SessionPage::default();
        let mut last = 0;
        for (session, key) in found.by_ref().take(limit) {
            last = session.touched;
            page.sessions.push(SessionSummary {
                id: key.id().clone(),
                turns: session.turns.len() as u64,
                updated_at: system_time(session.updated),
            });
        }
        page.next = found.next().map(|_| last.to_string());
        page
    }
}

impl Session {
    fn new(head: Head) -> Self {
        Self {
            head,
            turns: VecDeque::new(),
            forgotten: VecDeque::new(),
            ids: HashSet::new(),
            touched: 0,
            updated: 0,
            expires: 0,
            bytes: 0,
        }
    }

    fn load(&self, after: Option<&Cursor>) -> Loaded {
        let skip = match self.head.place(after) {
            Place::Unknown => None,
            Place::Start => Some(0),
            Place::After(count, id) => {
                let skip = (count - self.head.trimmed) as usize;
                self.turns.get(skip - 1).filter(|turn| turn.id() == id).map(|_| skip)
            }
        };
        Loaded {
            cursor: self.head.cursor(),
            turns: self.turns.iter().skip(skip.unwrap_or(0)).cloned().collect(),
            from_start: skip.is_none(),
        }
    }

    fn has_parent_of(&self, turn: &Turn) -> bool {
        match turn.parent() {
            Parent::Previous | Parent::Root => true,
            Parent::Turn(parent) => self.turns.iter().rev().any(|turn| turn.id() == parent),
        }
    }

    fn push(&mut self, turn: Turn) {
        self.head = self.head.with(turn.id());
        self.bytes += weight(&turn);
        self.ids.insert(turn.id());
        self.turns.push_back(turn);
    }

    fn trim(&mut self, excess: u64) {
        for _ in 0..excess {
            let Some(turn) = self.turns.pop_front() else { return };
            self.head.trimmed += 1;
            self.bytes -= weight(&turn) - FORGOTTEN_WEIGHT;
            self.forgotten.push_back(turn.id());
        }
        while self.forgotten.len() > Retention::REMEMBERED
            && let Some(id) = self.forgotten.pop_front()
        {
            self.ids.remove(&id);
            self.bytes -= FORGOTTEN_WEIGHT;
        }
    }
}

const SWEPT_PER_CHANGE: usize = 16;
const OVERHEAD: u64 = 512;
const FORGOTTEN_WEIGHT: u64 = 64;

fn weight(turn: &Turn) -> u64 {
    turn.record().len() as u64 + OVERHEAD
}

fn key_weight(key: &SessionKey) -> u64 {
    (key.namespace().len() + key.principal().as_str().len() + key.id().as_str().len()) as u64 + OVERHEAD
}

fn no_randomness(error: getrandom::Error) -> StoreError {
    StoreError::with_source(StoreErrorKind::Unavailable, error)
}
