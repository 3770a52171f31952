//! A store with a handle of its own for each worker thread: a Redis connection on the worker's own runtime.
//!
//! * What it saves: two wakes of another thread with every call. Its instructions were not counted apart.
//! * Without it: one connection lives on another thread's runtime. Each call wakes that thread, and its answer wakes the
//!   worker.
//! * What holds it: the conformance suite below, in which each call comes from another worker.

use tower_session_memory::store::HistoryStore;

/// Handles to one store; each thread uses the handle of its worker.
pub(super) struct PerWorker<S> {
    stores: Vec<S>,
    /// The number of the current thread's worker.
    worker: fn() -> usize,
}

impl<S> PerWorker<S> {
    /// One handle for each worker, in the order of the workers; `worker` names the current thread's.
    pub(super) fn new(stores: Vec<S>, worker: fn() -> usize) -> Self {
        Self { stores, worker }
    }

    fn here(&self) -> &S {
        &self.stores[(self.worker)()]
    }
}

impl<S: HistoryStore> HistoryStore for PerWorker<S> {
    tower_session_memory::delegate_history_store!(
        |this| *this.here();
        load, read, append, delete, sessions, principals, delete_principal, expire, durability, name
    );

    async fn close(&self) {
        for store in &self.stores {
            store.close().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use tower_session_memory::{
        store::InMemoryStore,
        testing::{
            ManualClock,
            conformance::{Harness, Options},
        },
    };

    use super::*;

    /// A store of which each call comes from the next of three workers.
    #[derive(Default)]
    struct ThreeWorkers(ManualClock);

    fn next_worker() -> usize {
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        CALLS.fetch_add(1, Ordering::Relaxed) % 3
    }

    impl Harness for ThreeWorkers {
        type Store = PerWorker<InMemoryStore>;

        async fn store(&self, options: &Options) -> Self::Store {
            let clock = self.0.clone();
            let store =
                InMemoryStore::new().with_clock(move || clock.now()).with_retention(options.retention);
            PerWorker::new(vec![store; 3], next_worker)
        }

        async fn pass(&self, time: Duration) {
            self.0.advance(time);
        }
    }

    tower_session_memory::conformance_tests!(ThreeWorkers::default());
}
