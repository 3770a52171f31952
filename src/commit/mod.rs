//! Turns on their way into the store.
//!
//! A commit that is not done at once runs in an owned, tracked task: the request and the response body may be
//! dropped at any await and the turn is still stored. [`Commits`] is the handle to these tasks.

mod observe;

pub use observe::Observer;

pub(crate) use observe::Observers;

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use backon::BackoffBuilder;
use tokio::{
    runtime::Handle,
    sync::{Notify, oneshot},
    time::{Instant, sleep, timeout},
};
use tokio_util::task::TaskTracker;

use crate::{
    failpoint::{self, Point},
    history::Record,
    session::{KeyDigest, SessionKey},
    store::{Appended, Cursor, DynHistoryStore},
    telemetry,
};

/// The turns that are being stored in the background, of all services of one layer.
///
/// Cheap to clone. Call [`drain`](Self::drain) before the runtime ends.
#[derive(Clone)]
pub struct Commits(Arc<Inner>);

struct Inner {
    store: Arc<dyn DynHistoryStore>,
    tracker: TaskTracker,
    /// Tasks that report to observers: a shutdown waits for them, and none is a turn.
    reports: TaskTracker,
    /// How many turns are being stored, and how many bytes they have.
    turns: AtomicUsize,
    bytes: AtomicUsize,
    /// Replies that are read on for clients that left.
    drains: AtomicUsize,
    /// By session, behind more than one lock, since every load looks here.
    in_flight: [Mutex<HashMap<KeyDigest, Waiting>>; LOCKS],
    announced: AtomicU64,
    lost: AtomicU64,
}

/// Replies of a session that are about to be stored or being stored, and the tasks that wait for them.
#[derive(Default)]
struct Waiting {
    /// Their numbers.
    announced: Vec<u64>,
    fewer: Arc<Notify>,
}

/// Turns that wait for the store, and how long they are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct AppendQueue {
    /// Most turns that wait at once. Default 1,024. A turn past it is not stored, which is logged and
    /// counted.
    pub turns: NonZeroUsize,
    /// Most bytes of turns that wait at once. Default 64 MiB.
    pub bytes: usize,
    /// Time limit of one attempt; past it the same turn is sent again. Default 5 s.
    pub attempt: Duration,
    /// Time for which a turn is tried. Default 60 s.
    pub retry: Duration,
}

impl Default for AppendQueue {
    fn default() -> Self {
        Self {
            turns: NonZeroUsize::MIN.saturating_add(1023),
            bytes: 64 * 1024 * 1024,
            attempt: Duration::from_secs(5),
            retry: Duration::from_secs(60),
        }
    }
}

impl AppendQueue {
    /// Sets [`turns`](Self::turns).
    #[must_use]
    pub fn with_turns(mut self, turns: NonZeroUsize) -> Self {
        self.turns = turns;
        self
    }

    /// Sets [`bytes`](Self::bytes).
    #[must_use]
    pub fn with_bytes(mut self, bytes: usize) -> Self {
        self.bytes = bytes;
        self
    }

    /// Sets [`attempt`](Self::attempt).
    #[must_use]
    pub fn with_attempt(mut self, attempt: Duration) -> Self {
        self.attempt = attempt;
        self
    }

    /// Sets [`retry`](Self::retry).
    #[must_use]
    pub fn with_retry(mut self, retry: Duration) -> Self {
        self.retry = retry;
        self
    }
}

/// What [`Commits::drain`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainReport {
    /// Turns that were still not stored when the deadline passed, those included whose reply is still read on
    /// for a client that left.
    pub pending: u64,
    /// Turns that were given up since the layer was built.
    pub lost: u64,
}

/// How a commit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Stored,
    /// The session was deleted meanwhile.
    Gone,
    /// It was given up.
    Lost,
}

/// A turn to be stored.
pub(crate) struct Commit {
    pub(crate) key: SessionKey,
    pub(crate) at: Cursor,
    pub(crate) turn: Record,
    pub(crate) queue: AppendQueue,
    pub(crate) observers: Observers,
}

/// What became of a turn that was to be stored.
pub(crate) enum Submitted {
    Done(Outcome),
    /// The answer comes when it is stored or given up; dropping the receiver changes nothing.
    Waiting(oneshot::Receiver<Outcome>),
}

/// A place in the queue.
struct Queued {
    commits: Commits,
    bytes: usize,
}

/// A reply that is read on for a client that left.
pub(crate) struct Draining(Commits);

/// A turn that counts as pending until its outcome is known. If its task ends without one (the store
/// panicked, or the runtime ended), the turn is lost, and that is said.
struct Undecided {
    queued: Queued,
    commit: Commit,
    decided: bool,
}

/// Makes loads of a session wait while it lives.
pub(crate) struct InFlight {
    commits: Commits,
    key: KeyDigest,
    number: u64,
}

/// A larger record is not handed to the store in the middle of a reply: a wrapper may compress or encrypt it first,
/// and what shares the connection would wait.
const IN_PLACE: usize = 64 * 1024;

/// Locks of the table of turns in flight.
const LOCKS: usize = 16;

impl Commits {
    pub(crate) fn new(store: Arc<dyn DynHistoryStore>) -> Self {
        Self(Arc::new(Inner {
            store,
            tracker: TaskTracker::new(),
            reports: TaskTracker::new(),
            turns: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            drains: AtomicUsize::new(0),
            in_flight: Default::default(),
            announced: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }))
    }

    /// Waits until every turn that is being stored is stored or given up, and every reply that is read on for
    /// a client that left ([`OnDisconnect::Drain`](crate::OnDisconnect::Drain)) has ended; at most until the
    /// deadline.
    ///
    /// Stop accepting requests first. The layer stays usable.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the waiting, not the storing.
    pub async fn drain(&self, deadline: Duration) -> DrainReport {
        // A closed tracker takes tasks all the same; it only tells when it is empty.
        self.0.tracker.close();
        self.0.reports.close();
        let all = async {
            self.0.tracker.wait().await;
            self.0.reports.wait().await;
        };
        let _ = timeout(deadline, all).await;
        // Every task is a turn, stored or still being answered.
        DrainReport { pending: self.0.tracker.len() as u64, lost: self.lost() }
    }

    /// How many turns are being stored now.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.0.turns.load(Ordering::Relaxed) as u64
    }

    /// How many turns were given up since the layer was built.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    /// Room to read one more reply on for a client that left: at most as many as turns may wait.
    pub(crate) fn room_to_drain(&self, queue: AppendQueue) -> Option<Draining> {
        take(&self.0.drains, 1, queue.turns.get())?;
        Some(Draining(self.clone()))
    }

    /// Runs a task that a shutdown waits for.
    pub(crate) fn spawn<F>(&self, runtime: &Handle, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.0.tracker.spawn_on(task, runtime);
    }

    /// Tasks that report to observers.
    pub(crate) fn reports(&self) -> &TaskTracker {
        &self.0.reports
    }

    /// Runs an exchange in a task that a shutdown waits for, and that goes on when its caller is dropped.
    pub(crate) async fn run<F>(&self, exchange: F) -> F::Output
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        match self.0.tracker.spawn(exchange).await {
            Ok(output) => output,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime is ending, and this future with it.
            Err(_) => std::future::pending().await,
        }
    }

    /// Makes loads of this session wait until the guard is dropped.
    pub(crate) fn announce(&self, key: KeyDigest) -> InFlight {
        let number = self.0.announced.fetch_add(1, Ordering::Relaxed);
        self.waiting(key).entry(key).or_default().announced.push(number);
        InFlight { commits: self.clone(), key, number }
    }

    /// Waits until the turns of the session that are in flight on this replica now are stored or given up;
    /// for those that come later it does not. Says whether they were within this time.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped at any time.
    pub(crate) async fn settled(&self, key: &SessionKey, patience: Duration) -> bool {
        let next = self.0.announced.load(Ordering::Relaxed);
        self.fewer(key, next).is_none() || timeout(patience, self.settled_before(key, next)).await.is_ok()
    }

    async fn settled_before(&self, key: &SessionKey, next: u64) {
        while let Some(fewer) = self.fewer(key, next) {
            let mut notified = std::pin::pin!(fewer.notified());
            notified.as_mut().enable();
            // It may have settled between the look and the registration.
            if self.fewer(key, next).is_some() {
                notified.await;
            }
        }
    }

    /// What tells that a turn of the session is no longer in flight, if one is that was announced before this number.
    fn fewer(&self, key: &SessionKey, next: u64) -> Option<Arc<Notify>> {
        let waiting = self.waiting(key.digest());
        let waiting = waiting.get(&key.digest()).filter(|waiting| waiting.has_before(next))?;
        Some(Arc::clone(&waiting.fewer))
    }

    /// Stores the turn: at once if the store can, so that no thread is woken and the reply's end need not wait for
    /// one; else in a task of its own, which loads of the session wait for.
    ///
    /// `in_flight` is the turn's own, if it has been announced.
    pub(crate) fn submit(&self, runtime: &Handle, commit: Commit, in_flight: Option<InFlight>) -> Submitted {
        let Some(queued) = self.queued(commit.turn.bytes().len(), commit.queue) else {
            return Submitted::Done(self.lose(&commit, "queue_full"));
        };
        let key = commit.key.digest();
        let large = commit.turn.bytes().len() > IN_PLACE;
        let mut undecided = Undecided { queued, commit, decided: false };
        let mut storing = Box::pin(async move {
            let outcome = undecided.queued.commits.store(&undecided.commit).await;
            undecided.decided = true;
            drop(undecided);
            outcome
        });
        // Until there is a task that a shutdown waits for.
        let _counts = self.0.tracker.token();
        if !large {
            let _entered = runtime.enter();
            let mut nobody = Context::from_waker(Waker::noop());
            // The caller reads a reply, which a store that panics must not damage.
            match catch_unwind(AssertUnwindSafe(|| storing.as_mut().poll(&mut nobody))) {
                Ok(Poll::Ready(outcome)) => return Submitted::Done(outcome),
                Err(_) => return Submitted::Done(Outcome::Lost),
                // The task polls it again at once, with a waker of its own.
                Ok(Poll::Pending) => {}
            }
        }
        let in_flight = in_flight.unwrap_or_else(|| self.announce(key));
        let (answer, receiver) = oneshot::channel();
        self.spawn(runtime, async move {
            let outcome = storing.await;
            drop(in_flight);
            let _ = answer.send(outcome);
        });
        Submitted::Waiting(receiver)
    }

    /// Sends the turn until the store has answered. A timeout means *unknown*, and sending the same turn
    /// again is how it becomes known.
    async fn store(&self, commit: &Commit) -> Outcome {
        failpoint::hit(Point::BeforeCommit);
        let started = Instant::now();
        let mut pauses = backon::ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(20))
            .with_max_delay(Duration::from_secs(2))
            .with_jitter()
            .without_max_times()
            .build();
        loop {
            let append = self.0.store.append_dyn(&commit.key, &commit.at, &commit.turn);
            match timeout(commit.queue.attempt, append).await {
                Ok(Ok(appended)) => {
                    failpoint::hit(Point::Committed);
                    telemetry::committed(&commit.key, appended, started.elapsed());
                    return match appended {
                        Appended::Appended { .. } | Appended::AlreadyThere(_) => {
                            commit.observers.committed(self.reports(), &commit.key, &commit.turn);
                            Outcome::Stored
                        }
                        Appended::Gone => Outcome::Gone,
                    };
                }
                Ok(Err(error)) => {
                    telemetry::store_failed("append", &commit.key, &error);
                    if !error.is_transient() {
                        return self.lose(commit, error.kind().as_str());
                    }
                }
                Err(_) => telemetry::store_timed_out("append", &commit.key),
            }
            let pause = pauses.next().unwrap_or(Duration::from_secs(2));
            if started.elapsed().saturating_add(pause) >= commit.queue.retry {
                return self.lose(commit, "retries_exhausted");
            }
            sleep(pause).await;
        }
    }

    fn lose(&self, commit: &Commit, reason: &'static str) -> Outcome {
        self.0.lost.fetch_add(1, Ordering::Relaxed);
        telemetry::lost(&commit.key, commit.turn.id(), reason);
        Outcome::Lost
    }

    fn queued(&self, bytes: usize, queue: AppendQueue) -> Option<Queued> {
        let AppendQueue { turns: max_turns, bytes: max_bytes, .. } = queue;
        take(&self.0.turns, 1, max_turns.get())?;
        if take(&self.0.bytes, bytes, max_bytes).is_none() {
            self.0.turns.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Queued { commits: self.clone(), bytes })
    }

    /// The turns in flight of the sessions that share this one's lock.
    fn waiting(&self, key: KeyDigest) -> MutexGuard<'_, HashMap<KeyDigest, Waiting>> {
        let lock = usize::from(key.first_byte()) % LOCKS;
        self.0.in_flight[lock].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Commits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commits")
            .field("pending", &self.pending())
            .field("lost", &self.lost())
            .finish_non_exhaustive()
    }
}

impl Waiting {
    fn has_before(&self, next: u64) -> bool {
        self.announced.iter().any(|number| *number < next)
    }
}

impl Drop for Undecided {
    fn drop(&mut self) {
        if !self.decided {
            self.queued.commits.lose(&self.commit, "interrupted");
        }
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        self.0.0.drains.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.commits.0.turns.fetch_sub(1, Ordering::Relaxed);
        self.commits.0.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Adds to a count that has a bound.
fn take(count: &AtomicUsize, more: usize, max: usize) -> Option<()> {
    let taken = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
        count.checked_add(more).filter(|count| *count <= max)
    });
    taken.ok().map(|_| ())
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut waiting = self.commits.waiting(self.key);
        let Some(entry) = waiting.get_mut(&self.key) else { return };
        entry.announced.retain(|number| *number != self.number);
        entry.fewer.notify_waiters();
        if entry.announced.is_empty() {
            waiting.remove(&self.key);
        }
    }
}
