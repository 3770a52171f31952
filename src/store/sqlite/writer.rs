//! The one thread that writes. All changes that wait when a transaction begins go into it together, so that
//! concurrent turns share one sync to disk. Callers are answered after the commit.

use std::{
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rusqlite::{Connection, config::DbConfig};
use tokio::sync::oneshot;

use super::{
    checkpoints::{self, CheckpointError, Checkpoints},
    error::{is_busy, is_failed_sync, store_error},
    file::FileId,
    inline_reader::InlineReader,
    log::{self, ExpiryPlace},
    queue::{Popped, Queue, closed},
    reader::Read,
    transaction::{Failed, apart, together, within},
};
use crate::{
    failpoint::{self, Point},
    history::Record,
    session::SessionKey,
    store::{Appended, Cursor, Erased, Retention, Scope, StoreError, StoreErrorKind, retention::Clock},
};

/// One change that a caller waits for.
pub(super) struct Write {
    pub(super) work: Work,
    pub(super) deadline: Instant,
    pub(super) answer: oneshot::Sender<Result<Done, StoreError>>,
}

pub(super) enum Work {
    Append { key: SessionKey, at: Cursor, turn: Record },
    Delete { key: SessionKey },
    Refresh { key: SessionKey, expires: i64 },
    DeletePrincipal { scope: Scope, most: usize },
    Expire { namespace: String, before: i64, after: ExpiryPlace, most: usize },
}

pub(super) enum Done {
    Append(Appended),
    Erased(Erased),
    Change,
}

pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) writes: Arc<Queue<Write>>,
    pub(super) reads: Arc<Queue<Read>>,
    pub(super) inline: Arc<InlineReader>,
    pub(super) readers: Vec<JoinHandle<()>>,
    pub(super) retention: Retention,
    pub(super) clock: Clock,
    /// How long a transaction waits for those of other processes.
    pub(super) patience: Duration,
    pub(super) sweep_interval: Duration,
    /// Which file was opened.
    pub(super) file: FileId,
    pub(super) checkpoints: Checkpoints,
    /// The file cannot be trusted any more.
    pub(super) failed: bool,
    pub(super) last: Batch,
}

/// What the last transaction was.
#[derive(Clone, Copy, Default)]
pub(super) struct Batch {
    changes: usize,
    took: Duration,
}

/// The largest number of changes in one transaction, and about the largest number of bytes.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 32 * 1024 * 1024;

const LONGEST_GATHERING: Duration = Duration::from_millis(1);

impl Writer {
    /// Works until the queue is closed and empty, then closes the store.
    pub(super) fn run(mut self) {
        let end = CloseAtEnd {
            writes: self.writes.clone(),
            reads: self.reads.clone(),
            inline: self.inline.clone(),
        };
        let mut sweep_at = Instant::now();
        loop {
            let patience = sweep_at.saturating_duration_since(Instant::now());
            // A checkpoint that ends while nothing is written is looked after soon.
            let patience = if self.checkpoints.is_running() { patience.min(SOON) } else { patience };
            match self.writes.pop(patience) {
                Popped::Job(first) => {
                    self.gather();
                    let batch = self.batch(first);
                    let (changes, started) = (batch.len(), Instant::now());
                    self.commit(batch);
                    self.last = Batch { changes, took: started.elapsed() };
                }
                Popped::Idle => {}
                Popped::Closed => break,
            }
            if Instant::now() >= sweep_at {
                let wait = if self.sweep() { MORE_TO_SWEEP } else { self.sweep_interval };
                sweep_at = Instant::now() + wait;
            }
            self.tend_the_log();
        }
        drop(end);
        for reader in self.readers.drain(..) {
            // A reader that panicked has said so; there is nothing to add.
            let _ = reader.join();
        }
        self.inline.end();
        if self.failed {
            drop(self.checkpoints.wait());
            return;
        }
        let ended = self.checkpoints.end(&self.connection);
        self.heed(ended, "the session database was closed without a checkpoint; no turn is lost");
    }

    fn tend_the_log(&mut self) {
        if self.failed {
            return;
        }
        let tended = self.checkpoints.tend(&self.connection);
        self.heed(
            tended,
            "a checkpoint of the session database failed; another comes when the log has grown",
        );
    }

    /// Closes the store where a checkpoint failed so that nothing can be trusted: SQLite, too, is not to move the WAL then
    /// when the connection is closed. Warns of anything else.
    fn heed(&mut self, checkpoint: Result<(), CheckpointError>, warning: &'static str) {
        match checkpoint {
            Ok(()) => {}
            Err(trouble) if checkpoints::is_fatal(&trouble) => self.fail(Vec::new(), &trouble),
            Err(error) => tracing::warn!(%error, "{warning}"),
        }
    }

    /// Callers that were just answered may have their next turns at once. To begin without them would be to sync twice
    /// for what can share a sync: so they are waited for, for half as long as that takes.
    fn gather(&self) {
        let Batch { changes, took } = self.last;
        if changes > 1 {
            let _ = self.writes.gather(changes - 1, (took / 2).min(LONGEST_GATHERING));
        }
    }

    fn batch(&self, first: Write) -> Vec<Write> {
        let mut bytes = first.work.weight();
        let mut batch = vec![first];
        while batch.len() < BATCH
            && let Some(write) = self.writes.pop_if(|write| bytes + write.work.weight() <= BATCH_BYTES)
        {
            bytes += write.work.weight();
            batch.push(write);
        }
        batch
    }

    fn commit(&mut self, batch: Vec<Write>) {
        let (batch, late): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|write| write.deadline > Instant::now());
        for write in late {
            write.answer(Err(StoreError::new(StoreErrorKind::Unavailable)));
        }
        if batch.is_empty() {
            return;
        }
        self.notice_a_lost_file();
        if self.failed {
            return batch.into_iter().for_each(|write| write.answer(Err(closed())));
        }
        let done = match self.transaction(&batch, together) {
            Err(Failed::Work(_)) if batch.len() > 1 => self.transaction(&batch, apart),
            done => done,
        };
        match done {
            Ok(done) => batch.into_iter().zip(done).for_each(|(write, done)| write.answer(done)),
            Err(Failed::Begin(error)) => refuse(batch, error),
            Err(Failed::Commit(error)) if is_failed_sync(&error) => self.fail(batch, &error),
            Err(failed) => self.retry_alone(batch, failed),
        }
    }

    /// One change may be what the whole transaction failed of: then the others need not.
    fn retry_alone(&mut self, mut batch: Vec<Write>, failed: Failed) {
        if batch.len() > 1 {
            batch.into_iter().for_each(|write| self.commit(vec![write]));
        } else if let Some(write) = batch.pop() {
            write.answer(Err(failed.into_error()));
        }
    }

    /// Does every change or, with an error, none. `step` says what the failure of one change means to the others.
    fn transaction(&self, batch: &[Write], step: Step) -> Result<Vec<Result<Done, StoreError>>, Failed> {
        within(&self.connection, self.patience, |connection| {
            // Read after the lock is held: commits of all processes see the clock in their order.
            let now = self.clock.now();
            let work = |write: &Write| step(connection, &|| write.work.run(connection, now, &self.retention));
            let done = batch.iter().map(work).collect();
            failpoint::hit(Point::Committing);
            done
        })
    }

    /// A file that was deleted or replaced can still be written, and what it holds will never be read.
    fn notice_a_lost_file(&mut self) {
        if !self.failed && !self.file.is_still_there() {
            self.fail(Vec::new(), &"the file was deleted or replaced");
        }
    }

    /// Stops for good: see [`is_failed_sync`].
    fn fail(&mut self, batch: Vec<Write>, error: &dyn std::fmt::Display) {
        tracing::error!(%error, "the SQLite session store closes itself: what it writes may not be kept");
        self.failed = true;
        let _ = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        self.inline.close();
        drop(self.reads.abandon());
        for write in batch.into_iter().chain(self.writes.abandon()) {
            write.answer(Err(closed()));
        }
    }

    /// Removes some of what expired; whether more is left.
    fn sweep(&mut self) -> bool {
        self.notice_a_lost_file();
        if self.failed {
            return false;
        }
        let now = self.clock.now();
        let sweep = |connection: &Connection| log::sweep(connection, now).map_err(Failed::Commit);
        match within(&self.connection, Duration::ZERO, sweep) {
            Ok(more) => more,
            Err(Failed::Begin(error)) if is_busy(&error) => true,
            Err(Failed::Commit(error)) if is_failed_sync(&error) => {
                self.fail(Vec::new(), &error);
                false
            }
            Err(failed) => {
                let error = failed.into_error();
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "expired sessions could not be removed yet");
                false
            }
        }
    }
}

impl Write {
    fn answer(self, answer: Result<Done, StoreError>) {
        // The caller may have left.
        let _ = self.answer.send(answer);
    }
}

impl Work {
    fn run(&self, connection: &Connection, now: i64, retention: &Retention) -> Result<Done, StoreError> {
        match self {
            Self::Append { key, at, turn } => {
                log::append(connection, key, at, turn, now, retention).map(Done::Append)
            }
            Self::Delete { key } => log::delete(connection, key, now, retention).map(|()| Done::Change),
            Self::Refresh { key, expires } => {
                log::refresh(connection, key, now, *expires).map(|()| Done::Change).map_err(store_error)
            }
            Self::DeletePrincipal { scope, most } => {
                log::delete_principal(connection, scope, *most, now, retention)
                    .map(Done::Erased)
                    .map_err(store_error)
            }
            Self::Expire { namespace, before, after, most } => {
                log::expire(connection, namespace, *before, *after, *most)
                    .map(Done::Erased)
                    .map_err(store_error)
            }
        }
    }

    /// Bytes of a batch that the change takes. One step of an erasure fills a batch: it erases as many sessions as a
    /// transaction may.
    fn weight(&self) -> usize {
        match self {
            Self::Append { turn, .. } => turn.bytes().len(),
            Self::Delete { .. } | Self::Refresh { .. } => 0,
            Self::DeletePrincipal { .. } | Self::Expire { .. } => BATCH_BYTES,
        }
    }
}

type Step =
    fn(&Connection, &dyn Fn() -> Result<Done, StoreError>) -> Result<Result<Done, StoreError>, Failed>;

fn refuse(batch: Vec<Write>, error: rusqlite::Error) {
    let error = Arc::new(error);
    for write in batch {
        write.answer(Err(store_error(error.clone())));
    }
}

/// How long the writer waits between two rounds of a sweep, so that appends come first.
const MORE_TO_SWEEP: Duration = Duration::from_millis(20);

const SOON: Duration = Duration::from_millis(10);

/// Closes the queues when the writer ends. Should it panic, no caller waits for it forever.
struct CloseAtEnd {
    writes: Arc<Queue<Write>>,
    reads: Arc<Queue<Read>>,
    inline: Arc<InlineReader>,
}

impl Drop for CloseAtEnd {
    fn drop(&mut self) {
        self.inline.close();
        self.reads.close();
        drop(self.writes.abandon());
    }
}

#[cfg(test)]
mod tests;
