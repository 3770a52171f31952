//! One shared connection, the task that keeps it, and calls over it.
//!
//! The task dials, hands the connection out, and dials again when a call finds it broken. Callers never hold
//! anything while they wait, so that one that leaves disturbs no other.
//!
//! A connection is given up when its socket broke, when its server takes no writes any more, and after
//! [`MISSES`] calls in a row without an answer: the client's Cluster connection can come to a halt for good
//! after several of its sockets broke at once, and a server behind a dead route says nothing at all. In a Cluster
//! others may answer all the while: there as many calls without an answer over [`SILENT_FOR`] are enough. A call
//! whose caller left early counts when it had waited for a while: callers have time limits of their own.

use std::{
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBuilder};
use futures_util::future::{Either, select};
use redis::{Cmd, RedisError, RedisResult, Value};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    dial::{Connection, Dialer, Dialled},
    error::{Verdict, damaged, is_noscript, store_error, verdict},
    script::Invocation,
    timeouts::Timeouts,
};
use crate::{
    history::RecordError,
    store::{StoreError, StoreErrorKind},
};

/// Calls in a row without an answer after which the connection is replaced.
const MISSES: u32 = 3;

/// Time after which a Cluster's connection is replaced although some calls are answered: one of its masters says nothing. By
/// then its replica may long have taken over.
const SILENT_FOR: Duration = Duration::from_secs(10);

/// A call that was dropped later than this counts as one without an answer.
const MISSED_AFTER: Duration = Duration::from_millis(400);

/// What is asked.
pub(super) enum RedisCall<'a> {
    Command(&'a Cmd),
    /// Commands that are sent together; the answer is an array of theirs.
    Together(&'a redis::Pipeline),
    /// A command for every server that takes writes.
    Every(&'a Cmd),
    /// A command for the server that takes writes to this slot.
    Slot(u16, &'a Cmd),
    Script(&'a Invocation),
    /// A script whose writes a number of replicas must have.
    Replicated(&'a Invocation, Replicas),
}

/// How many replicas must have a write, and how long one attempt waits for them.
#[derive(Clone, Copy)]
pub(super) struct Replicas {
    pub(super) count: u8,
    pub(super) wait: Duration,
}

pub(super) struct Link {
    current: watch::Receiver<Current>,
    broken: watch::Sender<u64>,
    misses: AtomicU32,
    silence: Mutex<Silence>,
}

/// Calls without an answer since the first of them, however many were answered meanwhile.
#[derive(Default)]
struct Silence {
    since: Option<Instant>,
    misses: u32,
}

impl Silence {
    /// Whether one more is one too many. Those of long ago count no more.
    fn missed(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        if now - since > 3 * SILENT_FOR {
            *self = Self { since: Some(now), misses: 1 };
            return false;
        }
        self.misses += 1;
        self.misses >= MISSES && now - since >= SILENT_FOR
    }
}

/// Which connection there is; generations count from 1.
#[derive(Clone, Default)]
struct Current {
    generation: u64,
    connection: Option<Connection>,
    error: Option<Arc<RedisError>>,
}

/// What one attempt came to.
enum Outcome {
    Answered(Value),
    /// Done, but on fewer replicas than asked.
    Unreplicated,
    Failed(RedisError),
}

/// A connection that gave an answer, so that it can be given up if the answer was wrong.
pub(super) struct UsedConnection(u64);

impl Link {
    pub(super) fn new(
        dialer: Arc<Dialer>,
        limits: Timeouts,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let (sender, current) = watch::channel(Current::default());
        let (broken, is_broken) = watch::channel(0);
        let keep = keep(dialer, limits.connect, sender, is_broken);
        tasks.spawn(stop.clone().run_until_cancelled_owned(keep));
        Self { current, broken, misses: AtomicU32::new(0), silence: Mutex::default() }
    }

    /// Asks until there is an answer or the time is over.
    ///
    /// What is asked must do no harm when it is done twice: an attempt whose connection broke may have been.
    pub(super) async fn call(
        &self,
        ask: &RedisCall<'_>,
        limits: Timeouts,
    ) -> Result<(Value, UsedConnection), StoreError> {
        let deadline = Instant::now() + limits.call;
        let mut pauses = backoff();
        let mut perhaps_done = false;
        loop {
            let current = match timeout_at(deadline, self.ready()).await {
                Ok(current) => current?,
                Err(_) => return Err(self.too_late(perhaps_done, None)),
            };
            let generation = current.generation;
            let Some(connection) = current.connection else { continue };
            let in_cluster = matches!(connection, Connection::Cluster(_));
            let until = deadline.min(Instant::now() + limits.attempt);
            let error = match self.attempt(generation, connection, ask, until).await {
                Some(Outcome::Answered(value)) => return Ok((value, UsedConnection(generation))),
                Some(Outcome::Failed(error)) => Some(error),
                Some(Outcome::Unreplicated) | None => None,
            };
            match error.as_ref().map(verdict) {
                None => perhaps_done = true,
                Some(Verdict::Lost) => {
                    perhaps_done = true;
                    // A Cluster's client mends what broke by itself, as a rule: see the misses.
                    if !in_cluster {
                        self.give_up(generation);
                    }
                }
                // A Cluster's client sends again by itself what had no answer, and tells of the last attempt only.
                Some(Verdict::WrongServer) => {
                    perhaps_done |= in_cluster;
                    self.give_up(generation);
                }
                Some(Verdict::Later) => perhaps_done |= in_cluster,
                Some(Verdict::Foreign) => {
                    self.distrust(&UsedConnection(generation));
                    return Err(damaged(RecordError::Foreign));
                }
                Some(Verdict::Never(StoreErrorKind::Other)) if perhaps_done => {
                    return Err(self.too_late(perhaps_done, error.map(Arc::new)));
                }
                Some(Verdict::Never(kind)) => return Err(store_error(kind, error.map(Arc::new))),
            }
            let pause = pauses.next().unwrap_or(LONGEST_PAUSE);
            if Instant::now() + pause >= deadline {
                return Err(self.too_late(perhaps_done, error.map(Arc::new)));
            }
            sleep(pause).await;
        }
    }

    /// Waits for the first connection. A server that refuses the user, the password or the database is not asked
    /// again.
    pub(super) async fn up(&self, limits: Timeouts) -> Result<(), StoreError> {
        let mut current = self.current.clone();
        let refused = |error: &Arc<RedisError>| matches!(verdict(error), Verdict::Never(_));
        let decided =
            |current: &Current| current.connection.is_some() || current.error.as_ref().is_some_and(refused);
        match timeout(limits.call, current.wait_for(decided)).await {
            Ok(Ok(current)) if current.connection.is_some() => Ok(()),
            Ok(Ok(current)) => Err(store_error(StoreErrorKind::Other, current.error.clone())),
            Ok(Err(_)) | Err(_) => Err(self.too_late(false, None)),
        }
    }

    /// The answer that came over this connection was to another question, or so it seems: nothing else over it
    /// can be trusted.
    pub(super) fn distrust(&self, used: &UsedConnection) {
        tracing::error!("a session store connection gave another session's record: it is dropped");
        self.give_up(used.0);
    }

    /// Waits for a connection.
    async fn ready(&self) -> Result<Current, StoreError> {
        let usable =
            |current: &Current| current.connection.is_some() && current.generation > *self.broken.borrow();
        {
            let current = self.current.borrow();
            if usable(&current) {
                return Ok(current.clone());
            }
        }
        match self.current.clone().wait_for(usable).await {
            Ok(current) => Ok(current.clone()),
            // The task is gone: the store was closed, or the runtime ends.
            Err(_) => Err(StoreError::new(StoreErrorKind::Unavailable)),
        }
    }

    /// `None`: no answer in time.
    async fn attempt(
        &self,
        generation: u64,
        connection: Connection,
        ask: &RedisCall<'_>,
        until: Instant,
    ) -> Option<Outcome> {
        let in_cluster = matches!(connection, Connection::Cluster(_));
        let missed = UnansweredAttempt {
            link: self,
            generation,
            in_cluster,
            since: Instant::now(),
            end: AttemptEnd::Dropped,
        };
        let outcome = timeout_at(until, ask.send(connection)).await.ok();
        missed.end(match &outcome {
            None => AttemptEnd::Unanswered,
            Some(Outcome::Failed(error)) if verdict(error) == Verdict::Lost => AttemptEnd::Unanswered,
            Some(_) => AttemptEnd::Answered,
        });
        outcome
    }

    fn give_up(&self, generation: u64) {
        self.misses.store(0, Ordering::Relaxed);
        *self.silence.lock().unwrap_or_else(PoisonError::into_inner) = Silence::default();
        self.broken.send_if_modified(|broken| {
            let later = generation > *broken;
            *broken = generation.max(*broken);
            later
        });
    }

    fn too_late(&self, perhaps_done: bool, error: Option<Arc<RedisError>>) -> StoreError {
        let kind = if perhaps_done { StoreErrorKind::Timeout } else { StoreErrorKind::Unavailable };
        store_error(kind, error.or_else(|| self.current.borrow().error.clone()))
    }
}

/// Counts an attempt that ends, or is dropped, without an answer.
struct UnansweredAttempt<'a> {
    link: &'a Link,
    generation: u64,
    in_cluster: bool,
    since: Instant,
    end: AttemptEnd,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum AttemptEnd {
    Answered,
    Unanswered,
    Dropped,
}

impl UnansweredAttempt<'_> {
    fn end(mut self, end: AttemptEnd) {
        self.end = end;
    }
}

impl Drop for UnansweredAttempt<'_> {
    fn drop(&mut self) {
        match self.end {
            AttemptEnd::Answered => self.link.misses.store(0, Ordering::Relaxed),
            AttemptEnd::Dropped if self.since.elapsed() < MISSED_AFTER => {}
            // Its successor has nothing to do with what one that was given up did not answer.
            AttemptEnd::Unanswered | AttemptEnd::Dropped if self.generation <= *self.link.broken.borrow() => {
            }
            AttemptEnd::Unanswered | AttemptEnd::Dropped => {
                let in_a_row = self.link.misses.fetch_add(1, Ordering::Relaxed) + 1 >= MISSES;
                let silence = || self.link.silence.lock().unwrap_or_else(PoisonError::into_inner);
                if in_a_row || self.in_cluster && silence().missed(Instant::now()) {
                    tracing::warn!("a session store connection gives no answers: it is replaced");
                    self.link.give_up(self.generation);
                }
            }
        }
    }
}

impl RedisCall<'_> {
    async fn send(&self, mut connection: Connection) -> Outcome {
        let answer = match self {
            Self::Command(cmd) => connection.command(cmd).await,
            Self::Together(commands) => match connection.pipeline(commands).await {
                // Each error by itself: in one for all, the client forgets what the server said.
                Ok(answers) => answers
                    .into_iter()
                    .map(Value::extract_error)
                    .collect::<RedisResult<_>>()
                    .map(Value::Array),
                Err(error) => Err(error),
            },
            Self::Every(cmd) => connection.every(cmd).await,
            Self::Slot(slot, cmd) => connection.slot(*slot, cmd).await,
            Self::Script(script) => run(&mut connection, script).await,
            Self::Replicated(script, replicas) => {
                return match run_and_wait(&mut connection, script, *replicas).await {
                    Ok((_, acknowledged)) if acknowledged < i64::from(replicas.count) => {
                        Outcome::Unreplicated
                    }
                    Ok((answer, _)) => Outcome::Answered(answer),
                    Err(error) => Outcome::Failed(error),
                };
            }
        };
        answer.map_or_else(Outcome::Failed, Outcome::Answered)
    }
}

async fn run(connection: &mut Connection, script: &Invocation) -> RedisResult<Value> {
    match connection.command(script.by_digest()).await {
        Err(error) if is_noscript(&error) => connection.command(&script.in_full()).await,
        answer => answer,
    }
}

/// Sent as one: `WAIT` tells of what its own connection wrote, and of nothing when that is another by then.
async fn run_and_wait(
    connection: &mut Connection,
    script: &Invocation,
    replicas: Replicas,
) -> RedisResult<(Value, i64)> {
    let mut wait = redis::cmd("WAIT");
    wait.arg(replicas.count).arg(u64::try_from(replicas.wait.as_millis()).unwrap_or(u64::MAX));
    let with = |script: Cmd| {
        let mut pipeline = redis::pipe();
        pipeline.add_command(script).add_command(wait.clone()).ignore_errors();
        pipeline
    };
    let [mut answer, mut waited] = two(connection.pipeline(&with(script.by_digest().clone())).await?)?;
    if answer.clone().extract_error().is_err_and(|error| is_noscript(&error)) {
        [answer, waited] = two(connection.pipeline(&with(script.in_full())).await?)?;
    }
    // Each error by itself: in one for both, the client forgets what the server said. A WAIT that ends in one,
    // because the server is no longer the master, has counted no replica.
    let acknowledged = if let Value::Int(replicas) = waited { replicas } else { 0 };
    Ok((answer.extract_error()?, acknowledged))
}

fn two(answers: Vec<Value>) -> RedisResult<[Value; 2]> {
    answers.try_into().map_err(|_| (redis::ErrorKind::UnexpectedReturnType, "no answer to WAIT").into())
}

/// Keeps a connection until it is dropped.
async fn keep(
    dialer: Arc<Dialer>,
    connect: Duration,
    current: watch::Sender<Current>,
    mut broken: watch::Receiver<u64>,
) {
    let mut generation = 0;
    let mut pauses = backoff();
    let mut earliest = Instant::now();
    loop {
        sleep_until(earliest).await;
        let dialled = match timeout(dialer.limit(connect), dialer.dial(connect)).await {
            Ok(dialled) => dialled,
            Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        };
        match dialled {
            Ok(Dialled { connection, master }) => {
                generation += 1;
                current.send_replace(Current { generation, connection: Some(connection), error: None });
                let up_since = Instant::now();
                let given_up = pin!(broken.wait_for(|broken| *broken >= generation));
                let superseded = pin!(dialer.superseded(master.as_ref(), connect));
                if let Either::Left((Err(_), _)) = select(given_up, superseded).await {
                    return;
                }
                current.send_modify(|current| current.connection = None);
                if up_since.elapsed() > LONGEST_PAUSE {
                    pauses = backoff();
                    earliest = Instant::now();
                    continue;
                }
            }
            Err(error) => {
                let error = Some(Arc::new(error));
                current.send_modify(|current| current.error = error);
            }
        }
        earliest = Instant::now() + pauses.next().unwrap_or(LONGEST_PAUSE);
    }
}

const LONGEST_PAUSE: Duration = Duration::from_millis(500);

fn backoff() -> impl Iterator<Item = Duration> + Send {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(10))
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_go_unanswered_for_long_tell_of_a_master_that_fell_silent() {
        let (start, mut silence) = (Instant::now(), Silence::default());
        let mut missed = |seconds| silence.missed(start + Duration::from_secs(seconds));
        assert!(!missed(0) && !missed(1) && !missed(2) && !missed(9), "not yet");
        assert!(missed(10));
        assert!(!missed(31) && !missed(40), "what was long ago counts no more");
        assert!(missed(41));
    }
}
