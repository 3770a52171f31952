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
    /// Loading it too. A load then writes; to spare most of these writes, one only does when at least a
    /// sixteenth of the time to live has passed.
    OnLoad,
}

/// A source of the time. The stores that come with the crate go by the system's clock unless told otherwise.
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

/// How long what is kept. Times are milliseconds since 1970.
#[derive(Debug, Clone)]
pub(crate) struct Retention {
    pub(crate) ttl: Duration,
    pub(crate) refresh: TtlRefresh,
    pub(crate) tombstone_ttl: Duration,
    pub(crate) max_turns: Option<NonZeroUsize>,
    pub(crate) clock: Clock,
}

impl Retention {
    pub(crate) const DEFAULT_TTL: Duration = Duration::from_secs(30 * DAY);
    pub(crate) const DEFAULT_TOMBSTONE_TTL: Duration = Duration::from_secs(DAY);

    /// How many ids of trimmed turns a session remembers, so that a late retry of one is recognised.
    pub(crate) const REMEMBERED: usize = 1024;

    pub(crate) fn session_expiry(&self, now: i64) -> i64 {
        now.saturating_add(millis(self.ttl))
    }

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
        Self {
            ttl: Self::DEFAULT_TTL,
            refresh: TtlRefresh::default(),
            tombstone_ttl: Self::DEFAULT_TOMBSTONE_TTL,
            max_turns: None,
            clock: Clock::default(),
        }
    }
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
