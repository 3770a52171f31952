use std::fmt;

use crate::history::RecordId;

/// Which incarnation of a session's log a cursor belongs to.
///
/// Deleting a session ends its epoch. [`Epoch::UNBORN`] is the epoch of a session that has never been
/// written; every other is random.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch([u8; 16]);

impl Epoch {
    /// The epoch of a session that has no log and no tombstone.
    pub const UNBORN: Self = Self([0; 16]);

    /// A new random epoch: 122 bits of a generator that the operating system seeds.
    #[must_use]
    pub fn random() -> Self {
        // Never UNBORN: a UUID's version is not zero.
        Self(uuid::Uuid::new_v4().into_bytes())
    }

    /// The epoch from its 16 bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A place in a session's log: the epoch, how many turns were ever appended in it, and the newest of them.
///
/// Never a bare number: after a failover a counter comes back with other content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The log's incarnation.
    pub epoch: Epoch,
    /// How many turns were appended up to here, trimmed ones included.
    pub count: u64,
    /// The newest turn up to here; `None` at the start.
    pub newest: Option<RecordId>,
}

impl Cursor {
    /// The start of a log.
    #[must_use]
    pub fn start_of(epoch: Epoch) -> Self {
        Self { epoch, count: 0, newest: None }
    }
}
