use std::{
    fmt,
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, SystemTime},
};

/// What starts a session's time to live again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum TtlRefresh {
    /// Appending a turn.
    #[default]
    OnAppend,
    /// Loading it too. A load then writes, but only once a sixteenth of the time to live has passed.
    OnLoad,
}

/// A source of the time: the system's clock unless a test sets another.
#[derive(Clone)]
pub(crate) struct Clock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Clock {
    pub(crate) fn new(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// Milliseconds since 1970.
    pub(crate) fn now(&self) -> i64 {
        self.0().duration_since(SystemTime::UNIX_EPOCH).map_or(0, millis)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new(SystemTime::now)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// How long a store keeps sessions, and how much of each: the same for every store.
///
/// What is set applies to sessions that are appended to from then on.
///
/// ```
/// use std::time::Duration;
/// use tower_session_memory::store::{InMemoryStore, Retention};
///
/// let week = Retention::new().with_ttl(Duration::from_secs(7 * 24 * 60 * 60));
/// let store = InMemoryStore::new().with_retention(week);
/// # let _ = store;
/// ```
///
/// # Defaults
///
/// Sessions expire 30 days after their newest turn; what a deletion leaves behind expires after a day; a log has any
/// number of turns, of together 32 MiB at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retention {
    /// See [`with_ttl`](Self::with_ttl).
    pub ttl: Duration,
    /// See [`with_refresh`](Self::with_refresh).
    pub refresh: TtlRefresh,
    /// See [`with_tombstone_ttl`](Self::with_tombstone_ttl).
    pub tombstone_ttl: Duration,
    /// See [`with_max_turns`](Self::with_max_turns).
    pub max_turns: Option<NonZeroUsize>,
    /// See [`with_max_bytes`](Self::with_max_bytes).
    pub max_bytes: Option<u64>,
}

impl Retention {
    /// The number of a session's newest records, trimmed ones included, of which every store recognises a late retry.
    pub const REMEMBERED: usize = 1024;

    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self {
            ttl: Duration::from_secs(30 * DAY),
            refresh: TtlRefresh::default(),
            tombstone_ttl: Duration::from_secs(DAY),
            max_turns: None,
            max_bytes: Some(32 * 1024 * 1024),
        }
    }

    /// Time from a session's newest turn to its expiry. Default: 30 days. `Duration::MAX` is for ever, in Redis a hundred
    /// years.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Whether loads put off the expiry too. Default: only appends do.
    #[must_use]
    pub fn with_refresh(mut self, refresh: TtlRefresh) -> Self {
        self.refresh = refresh;
        self
    }

    /// Time after a deletion in which records that were in flight are refused. Default: one day. Longer than any reply
    /// and its retries take.
    #[must_use]
    pub fn with_tombstone_ttl(mut self, ttl: Duration) -> Self {
        self.tombstone_ttl = ttl;
        self
    }

    /// The number of turns that a log keeps, the newest. Default: all of them.
    ///
    /// Older ones go in whole tool exchanges: the newest exchange stays, however long.
    #[must_use]
    pub fn with_max_turns(mut self, turns: impl Into<Option<NonZeroUsize>>) -> Self {
        self.max_turns = turns.into();
        self
    }

    /// The size that a log keeps, in bytes of its records as they are stored. Default: 32 MiB. `None`: any size.
    ///
    /// Past it the oldest turns go, in whole tool exchanges: the newest exchange stays, however large.
    #[must_use]
    pub fn with_max_bytes(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.max_bytes = bytes.into();
        self
    }

    /// Whether a log of this size is past the bounds.
    pub(crate) fn is_exceeded_by(&self, records: u64, bytes: u64) -> bool {
        self.max_turns.is_some_and(|most| records > most.get() as u64)
            || self.max_bytes.is_some_and(|most| bytes > most)
    }

    /// When a session expires that is appended to now, in milliseconds since 1970.
    pub(crate) fn session_expiry(&self, now: i64) -> i64 {
        now.saturating_add(millis(self.ttl))
    }

    /// When a tombstone expires that is written now, in milliseconds since 1970.
    pub(crate) fn tombstone_expiry(&self, now: i64) -> i64 {
        now.saturating_add(millis(self.tombstone_ttl))
    }

    /// The new expiry of a session that is loaded, if the load is to change it.
    pub(crate) fn refreshed(&self, expires: i64, now: i64) -> Option<i64> {
        let fresh = self.session_expiry(now);
        let due = fresh.saturating_sub(expires) >= (millis(self.ttl) / 16).max(1);
        (self.refresh == TtlRefresh::OnLoad && due).then_some(fresh)
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self::new()
    }
}

/// The time, this long ago, in milliseconds since 1970.
pub(crate) fn before(now: i64, age: Duration) -> i64 {
    now.saturating_sub(millis(age))
}

/// When a session expires, for listings; `None`: never.
pub(crate) fn expiry_time(millis: i64) -> Option<SystemTime> {
    (millis < i64::MAX).then(|| system_time(millis))
}

/// The time that milliseconds since 1970 stand for.
pub(crate) fn system_time(millis: i64) -> SystemTime {
    u64::try_from(millis)
        .ok()
        .and_then(|millis| SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis)))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

const DAY: u64 = 24 * 60 * 60;
