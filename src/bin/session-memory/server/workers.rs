//! The threads that serve connections, each with a runtime of its own.
//!
//! A connection stays on its thread from its first byte to its last, and so do its connections to the upstream: no
//! request wakes another core. A work-stealing runtime pays for the stealing with every request, and has little
//! to steal here, since connections are numerous and compute little.

use std::{
    cell::Cell,
    future::Future,
    io,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    runtime::{Builder, Handle},
    time::interval,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::error::BoxError;

thread_local! {
    static HERE: Cell<usize> = const { Cell::new(0) };
}

/// The number of the worker whose thread this is; 0 on any other thread.
pub(crate) fn here() -> usize {
    HERE.get()
}

/// Blocking calls, such as a name's look-up, may outlast all other work by 500 ms.
const BLOCKING: Duration = Duration::from_millis(500);

/// Shorter than the limits of requests and of the store's calls, and long enough to cost a resting process nothing.
const TICK: Duration = Duration::from_millis(250);

/// The threads. Their runtimes end with [`stop`](Self::stop), or with the process.
pub(crate) struct Workers {
    workers: Vec<Worker>,
    stop: CancellationToken,
}

struct Worker {
    runtime: Handle,
    thread: thread::JoinHandle<()>,
    connections: Arc<AtomicUsize>,
}

/// A connection's seat at the worker with the fewest connections; given back on drop.
pub(crate) struct Seat {
    pub(crate) worker: usize,
    connections: Arc<AtomicUsize>,
}

impl Workers {
    /// Starts `count` threads.
    ///
    /// # Errors
    ///
    /// When the system gives no thread, or no selector for its runtime.
    pub(crate) fn start(count: NonZeroUsize) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let workers = (0..count.get()).map(|number| Worker::start(number, stop.clone()));
        Ok(Self { workers: workers.collect::<Result<_, _>>()?, stop })
    }

    pub(crate) fn count(&self) -> usize {
        self.workers.len()
    }

    /// The runtime of one of them.
    pub(crate) fn runtime(&self, worker: usize) -> &Handle {
        &self.workers[worker].runtime
    }

    /// Runs a future on one of them to its end.
    ///
    /// # Errors
    ///
    /// When it panics.
    pub(crate) async fn run<F>(&self, worker: usize, future: F) -> Result<F::Output, BoxError>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        Ok(TaskTracker::new().spawn_on(future, self.runtime(worker)).await?)
    }

    /// A seat at the worker with the fewest connections, the first of several with as few.
    ///
    /// Clients that come one after the other thus find the upstream connections of those before them.
    pub(crate) fn seat(&self) -> Seat {
        let open = |worker: &usize| self.workers[*worker].connections.load(Ordering::Relaxed);
        let worker = (0..self.count()).min_by_key(open).unwrap_or_default();
        let connections = Arc::clone(&self.workers[worker].connections);
        connections.fetch_add(1, Ordering::Relaxed);
        Seat { worker, connections }
    }

    /// Ends the runtimes, and all that still runs on them.
    pub(crate) fn stop(self) {
        self.stop.cancel();
        for worker in self.workers {
            // A worker that panicked has said so.
            let _ = worker.thread.join();
        }
    }
}

impl Worker {
    fn start(number: usize, stop: CancellationToken) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let thread = thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
            HERE.set(number);
            runtime.block_on(tick_until(stop));
            runtime.shutdown_timeout(BLOCKING);
        })?;
        Ok(Self { runtime: handle, thread, connections: Arc::default() })
    }
}

/// Keeps one timer due within 250 ms until `stop`.
///
/// A runtime without a timer due soon is woken for every timer that is set, and each request sets some. The tick saves 5.5
/// of 19.0 system calls of a request with Redis
/// (`cargo bench --profile cost --features proxy --bench cost -- 'Redis: a request, 20 turns'`).
async fn tick_until(stop: CancellationToken) {
    let mut ticks = interval(TICK);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {}
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_connection_goes_where_the_fewest_are() {
        let workers = Workers::start(NonZeroUsize::new(3).unwrap()).unwrap();
        let seats: Vec<_> = (0..6).map(|_| workers.seat()).collect();
        let at = |worker| seats.iter().filter(|seat| seat.worker == worker).count();
        assert_eq!([at(0), at(1), at(2)], [2, 2, 2]);
        let (left, kept): (Vec<_>, Vec<_>) = seats.into_iter().partition(|seat| seat.worker == 1);
        drop(left);
        let more = [workers.seat(), workers.seat()];
        assert!(more.iter().all(|seat| seat.worker == 1), "the two that left are not made good");
        drop(kept);
        workers.stop();
    }

    #[tokio::test]
    async fn a_task_runs_on_the_thread_of_its_worker() {
        let workers = Workers::start(NonZeroUsize::new(2).unwrap()).unwrap();
        for worker in 0..2 {
            assert_eq!(workers.run(worker, async { here() }).await.unwrap(), worker);
        }
        workers.stop();
    }
}
