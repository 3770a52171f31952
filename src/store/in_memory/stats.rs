/// What an [`InMemoryStore`](super::InMemoryStore) holds now, and what it dropped.
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
