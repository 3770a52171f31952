/// What a [`Cached`](super::Cached) store holds now, and what it was good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CacheStats {
    /// Logs that are kept.
    pub sessions: u64,
    /// Bytes of memory that they take.
    pub bytes: u64,
    /// Loads that took only what was new from the store.
    pub hits: u64,
    /// Loads that took a whole log from the store.
    pub misses: u64,
    /// Logs that went to make room.
    pub evicted: u64,
}
