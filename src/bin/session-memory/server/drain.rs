//! The end of the proxy: replies are finished, turns are stored, and what was cut or lost is reported.
//!
//! On the first signal the listener closes, and replies may go on until `drain_deadline`. Beyond it, connections are
//! cut, and the last turns have 5 seconds to be stored. A second signal ends the process at once.

use std::{process::ExitCode, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::Instant,
};
use tower_session_memory::Commits;

use crate::{error::BoxError, traffic::Work};

/// The last turns may take 5 seconds to be stored, also where the last reply ended at the deadline.
const LAST_COMMITS: Duration = Duration::from_secs(5);
/// The exit code when something was cut or not stored.
const INCOMPLETE: u8 = 3;
/// The exit code of a process that was interrupted: 128 + SIGINT.
const INTERRUPTED: i32 = 130;

/// SIGTERM and SIGINT.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// # Errors
    ///
    /// When the system does not let the process listen for signals.
    pub(crate) fn new() -> Result<Self, BoxError> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The next signal's name.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Finishes what has begun, within the deadline; a second signal ends the process at once.
pub(crate) async fn drain(
    work: &Work,
    commits: &Commits,
    deadline: Duration,
    signals: &mut Signals,
) -> ExitCode {
    tokio::select! {
        code = finish(work, commits, deadline) => code,
        name = signals.next() => {
            eprintln!("session-memory: {name} again: ending at once; replies are cut, turns may be lost");
            #[expect(clippy::disallowed_methods, reason = "the drain was called off")]
            std::process::exit(INTERRUPTED);
        }
    }
}

async fn finish(work: &Work, commits: &Commits, deadline: Duration) -> ExitCode {
    let (began, lost_before) = (Instant::now(), commits.lost());
    work.tasks.close();
    if tokio::time::timeout(deadline, work.tasks.wait()).await.is_err() {
        work.abort.cancel();
        // Tasks end at their next poll; a task that never yields is not waited for.
        let _ = tokio::time::timeout(LAST_COMMITS, work.tasks.wait()).await;
    }
    let cut = work.cut();
    let left = deadline.saturating_sub(began.elapsed());
    let report = commits.drain(left.max(LAST_COMMITS)).await;
    let unsaved = report.pending + (report.lost - lost_before);
    if cut > 0 {
        eprintln!("session-memory: connections cut at the drain deadline of {deadline:?}: {cut}");
    }
    if unsaved > 0 {
        eprintln!("session-memory: turns NOT stored: {unsaved}");
    }
    if cut == 0 && unsaved == 0 {
        eprintln!("session-memory: stopped; every reply ended and every turn is stored");
        return ExitCode::SUCCESS;
    }
    ExitCode::from(INCOMPLETE)
}
