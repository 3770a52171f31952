//! Tasks of the proxy, and the two ways in which they end.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The tasks of the proxy, and the two signals that end them. Clones share both.
#[derive(Clone, Default)]
pub(crate) struct Work {
    /// Every connection, and each task that works for one.
    pub(crate) tasks: TaskTracker,
    /// Finish what has begun, begin nothing new.
    pub(crate) draining: CancellationToken,
    /// End at once.
    pub(crate) abort: CancellationToken,
    cut: Arc<AtomicUsize>,
}

impl Work {
    /// Counts a connection that ended at `abort` with a request on it.
    pub(crate) fn was_cut(&self) {
        self.cut.fetch_add(1, Ordering::AcqRel);
    }

    /// The number of connections that were cut.
    pub(crate) fn cut(&self) -> usize {
        self.cut.load(Ordering::Acquire)
    }
}
