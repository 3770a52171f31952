use std::time::Duration;

/// When SQLite waits for the disk: <https://www.sqlite.org/pragma.html#pragma_synchronous>.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Synchronous {
    /// At every commit: an acknowledged turn survives the death of the machine.
    #[default]
    Full,
    /// At checkpoints only: faster, and the newest acknowledged turns may be lost with the machine, though
    /// not with the process. Never damages the file.
    Normal,
}

/// How connections are set up.
pub(super) struct Setup {
    pub(super) synchronous: Synchronous,
    pub(super) busy_timeout: Duration,
    pub(super) max_bytes: Option<u64>,
}
