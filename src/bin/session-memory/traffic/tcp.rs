//! Time limits of TCP by which both sides notice a peer whose network is gone.

use std::time::Duration;

/// Data may stay unacknowledged for 30 seconds before the connection counts as dead.
pub(crate) const USER_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection that carries nothing is probed every 60 seconds.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(60);
