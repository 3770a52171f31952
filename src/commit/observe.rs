//! Observers: what happens to sessions, reported off the request path.

use std::{
    collections::VecDeque,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use crate::{exchange::Decision, history::Record, session::SessionKey, telemetry};

/// Takes note of decisions and commits, for a metric, a listing, or a live view.
///
/// Called in a task of its own, one event at a time, in the order in which this replica noted them. No request waits for
/// it: at most 1,024 events and 16 MiB of records wait, later ones are dropped, counted in
/// `session_memory_observer_dropped_total` and logged. An observer that panics misses that event.
///
/// The methods run on a thread of the runtime and must not block: hand work that waits to a channel or a thread of your
/// own.
pub trait Observer: Send + Sync + 'static {
    /// A request that names a session is about to be forwarded.
    fn decided(&self, key: &SessionKey, decision: &Decision) {
        let _ = (key, decision);
    }

    /// A record is in the store, as durably as the store offers.
    fn committed(&self, key: &SessionKey, record: &Record) {
        let _ = (key, record);
    }
}

/// The observers of a layer.
#[derive(Clone, Default)]
pub(crate) struct Observers(Option<Arc<Inner>>);

struct Inner {
    observers: Vec<Arc<dyn Observer>>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<Event>,
    /// Bytes of their records.
    bytes: usize,
    /// Whether a task reports them.
    reported: bool,
}

/// The task that reports. The next event makes another one when it ends, by itself or with its runtime.
struct Reporting(Arc<Inner>);

enum Event {
    Decided(SessionKey, Decision),
    Committed(SessionKey, Record),
}

/// Events that wait at most.
const MOST: usize = 1024;

/// Bytes of records that wait at most.
const MOST_BYTES: usize = 16 * 1024 * 1024;

impl Observers {
    /// These and one more. Events that wait for the others are reported to those alone.
    pub(crate) fn and(&self, observer: Arc<dyn Observer>) -> Self {
        let others = self.0.as_ref().map_or(&[][..], |inner| &inner.observers);
        let observers = others.iter().cloned().chain([observer]).collect();
        Self(Some(Arc::new(Inner { observers, waiting: Mutex::default() })))
    }

    pub(crate) fn decided(&self, tasks: &TaskTracker, key: &SessionKey, decision: &Decision) {
        self.report(tasks, || Event::Decided(key.clone(), decision.clone()));
    }

    pub(crate) fn committed(&self, tasks: &TaskTracker, key: &SessionKey, record: &Record) {
        self.report(tasks, || Event::Committed(key.clone(), record.clone()));
    }

    fn report(&self, tasks: &TaskTracker, event: impl FnOnce() -> Event) {
        let Some(inner) = &self.0 else { return };
        let event = event();
        let bytes = event.bytes();
        let mut waiting = inner.waiting();
        if waiting.events.len() == MOST || waiting.bytes.saturating_add(bytes) > MOST_BYTES {
            drop(waiting);
            return telemetry::unobserved();
        }
        waiting.bytes += bytes;
        waiting.events.push_back(event);
        if !waiting.reported
            && let Ok(runtime) = Handle::try_current()
        {
            waiting.reported = true;
            let reporting = Reporting(Arc::clone(inner));
            drop(waiting);
            tasks.spawn_on(async move { reporting.0.report_all().await }, &runtime);
        }
    }
}

impl Inner {
    /// Reports until nothing waits. A shutdown waits for this task.
    async fn report_all(&self) {
        while let Some(event) = self.next() {
            for observer in &self.observers {
                // A fault of one observer is its own.
                let _ = catch_unwind(AssertUnwindSafe(|| event.report(&**observer)));
            }
            tokio::task::yield_now().await;
        }
    }

    fn next(&self) -> Option<Event> {
        let mut waiting = self.waiting();
        let event = waiting.events.pop_front();
        match &event {
            Some(event) => waiting.bytes -= event.bytes(),
            None => waiting.reported = false,
        }
        event
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reporting {
    fn drop(&mut self) {
        self.0.waiting().reported = false;
    }
}

impl Event {
    fn bytes(&self) -> usize {
        match self {
            Self::Decided(..) => 0,
            Self::Committed(_, record) => record.bytes().len(),
        }
    }

    fn report(&self, observer: &dyn Observer) {
        match self {
            Self::Decided(key, decision) => observer.decided(key, decision),
            Self::Committed(key, record) => observer.committed(key, record),
        }
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let observers = self.0.as_ref().map_or(0, |inner| inner.observers.len());
        f.debug_struct("Observers").field("observers", &observers).finish_non_exhaustive()
    }
}
