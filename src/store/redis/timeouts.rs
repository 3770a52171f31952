//! Time limits of the connections and of the calls over them.

use std::time::Duration;

/// The time limits of calls.
#[derive(Clone, Copy)]
pub(super) struct Timeouts {
    /// Of dialling.
    pub(super) connect: Duration,
    /// Of one attempt.
    pub(super) attempt: Duration,
    /// Of a call, with all its attempts.
    pub(super) call: Duration,
}
