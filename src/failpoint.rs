//! Named points at which the process can be made to abort: the crash tests' way to kill the proxy exactly
//! between two steps.
//!
//! Compiled only with feature `failpoints`; without it [`hit`] is an empty inline function. The environment
//! variable `SESSION_MEMORY_ABORT_AT=point:n` aborts the process when the point is reached for the n-th time
//! (from 1). Nothing is flushed and no destructor runs, as with `kill -9`.

/// Where in a turn's life the process stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// The session is known, nothing was read from the store.
    BeforeLoad,
    /// The history is there, nothing was forwarded.
    Loaded,
    /// The request is spliced and about to be sent.
    Forwarded,
    /// A piece of the reply went by.
    MidStream,
    /// The reply is complete and its end is held back; the store was not asked yet.
    BeforeCommit,
    /// Inside the store, between the write and its commit.
    #[cfg_attr(not(feature = "sqlite"), expect(dead_code, reason = "only the SQLite store comes by"))]
    Committing,
    /// The store has acknowledged; the end is still held back.
    Committed,
    /// The server has taken the end, and may have sent it.
    Ended,
}

/// Dies here if the environment says so.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub(crate) fn hit(_point: Point) {}

/// Dies here if the environment says so.
#[cfg(feature = "failpoints")]
pub(crate) fn hit(point: Point) {
    use std::sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    };

    static TARGET: LazyLock<Option<(String, u64)>> = LazyLock::new(|| {
        let target = std::env::var("SESSION_MEMORY_ABORT_AT").ok()?;
        let (name, count) = target.split_once(':')?;
        Some((name.to_owned(), count.parse().ok()?))
    });
    static HITS: AtomicU64 = AtomicU64::new(0);

    if let Some((name, count)) = &*TARGET
        && name == point.name()
        && HITS.fetch_add(1, Ordering::SeqCst) + 1 == *count
    {
        std::process::abort();
    }
}

#[cfg(feature = "failpoints")]
impl Point {
    fn name(self) -> &'static str {
        match self {
            Self::BeforeLoad => "before-load",
            Self::Loaded => "loaded",
            Self::Forwarded => "forwarded",
            Self::MidStream => "mid-stream",
            Self::BeforeCommit => "before-commit",
            Self::Committing => "committing",
            Self::Committed => "committed",
            Self::Ended => "ended",
        }
    }
}
