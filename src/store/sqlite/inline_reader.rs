//! Loads that are answered on the caller's thread.
//!
//! Saves: handing a load to a thread and being woken with its answer takes several times the 10 µs or so of the load
//! itself, a few pages that are nearly always in memory.
//! Without it: every load is answered by the reading threads, which is right as well.
//! Held by: `a_load_that_waited_for_the_disk_keeps_the_next_ones_off_the_callers_thread`, below, and the conformance suite,
//! whose loads go both ways.
//!
//! A connection that is free is used, as long as little is to be read. The threads get what cannot be answered so: no
//! connection is free, more is to be read, another process is in the way, anything went wrong.
//!
//! A page that is not in memory makes the caller's thread wait for the disk. When that is noticed, loads go to the
//! threads for a second, and for twice as long each time that it happens again, up to a minute: a runtime's thread
//! waits for a slow disk once in that time.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::reader::{LoadAnswer, LoadLimit, Reader};
use crate::{session::SessionKey, store::Cursor};

/// What is read on the caller's thread at most: the turns of a request or two since the last load.
const LITTLE: LoadLimit = LoadLimit { turns: 4, bytes: 64 * 1024 };

/// A load that took longer has waited for the disk.
const SLOW: Duration = Duration::from_millis(1);

const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Connections for loads on the caller's thread.
pub(super) struct InlineReader {
    state: Mutex<State>,
    returned: Condvar,
}

struct State {
    readers: Vec<Reader>,
    lent: usize,
    closed: bool,
    not_before: Option<Instant>,
    pause: Duration,
}

impl InlineReader {
    pub(super) fn new(readers: Vec<Reader>) -> Self {
        Self {
            state: Mutex::new(State {
                readers,
                lent: 0,
                closed: false,
                not_before: None,
                pause: SHORTEST_PAUSE,
            }),
            returned: Condvar::new(),
        }
    }

    /// The answer, or `None` where a thread is to give it.
    pub(super) fn load(&self, key: &SessionKey, after: Option<&Cursor>) -> Option<LoadAnswer> {
        let started = Instant::now();
        let lent = self.lend(started)?;
        let answer = lent.reader.as_ref()?.load(key, after, LITTLE);
        lent.give_back(started.elapsed());
        answer.ok().flatten()
    }

    /// Lends nothing more.
    pub(super) fn close(&self) {
        self.state().closed = true;
    }

    /// Closes the connections, those that are lent as soon as they are back.
    pub(super) fn end(&self) {
        self.close();
        let lent = |state: &mut State| state.lent > 0;
        let mut state = self.returned.wait_while(self.state(), lent).unwrap_or_else(PoisonError::into_inner);
        state.readers.clear();
    }

    fn lend(&self, now: Instant) -> Option<LentReader<'_>> {
        let mut state = self.state();
        if state.closed || state.not_before.is_some_and(|not_before| now < not_before) {
            return None;
        }
        let reader = state.readers.pop()?;
        state.lent += 1;
        Some(LentReader { from: self, reader: Some(reader), took: None })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn took(&mut self, time: Duration) {
        if time < SLOW {
            // It has been fast for as long as it was to be avoided.
            if self.not_before.is_some_and(|not_before| not_before.elapsed() > self.pause) {
                (self.not_before, self.pause) = (None, SHORTEST_PAUSE);
            }
            return;
        }
        self.not_before = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

/// A reader that goes back where it came from, whatever happens.
struct LentReader<'a> {
    from: &'a InlineReader,
    reader: Option<Reader>,
    took: Option<Duration>,
}

impl LentReader<'_> {
    fn give_back(mut self, took: Duration) {
        self.took = Some(took);
    }
}

impl Drop for LentReader<'_> {
    fn drop(&mut self) {
        let mut state = self.from.state();
        state.readers.extend(self.reader.take());
        state.lent -= 1;
        if let Some(took) = self.took {
            state.took(took);
        }
        let closed = state.closed;
        drop(state);
        if closed {
            self.from.returned.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_that_waited_for_the_disk_keeps_the_next_ones_off_the_callers_thread() {
        let inline = InlineReader::new(Vec::new());
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let mut state = inline.state();
            state.took(SLOW / 2);
            state.took(SLOW);
            let now = Instant::now();
            let until = state.not_before.map_or(Duration::ZERO, |not_before| not_before - now);
            pauses.push(until.as_secs_f64().round() as u64);
            // As if the pause were over.
            state.not_before = Some(now);
            drop(state);
            assert!(inline.lend(now - SLOW).is_none(), "before it is over");
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    }
}
