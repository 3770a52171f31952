use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Semaphore;

use crate::store::{StoreError, StoreErrorKind};

/// A bounded queue from tasks to threads. A push waits for room without blocking its thread; a pop blocks.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
    room: Semaphore,
}

/// What a thread finds in the queue.
pub(super) enum Popped<T> {
    Job(T),
    /// Nothing came for as long as the thread would wait.
    Idle,
    /// Nothing is left, and nothing will come.
    Closed,
}

/// The queue takes nothing more.
#[derive(Debug, thiserror::Error)]
#[error("the store is closed: by its owner, or by itself after the disk failed it (the log tells)")]
pub(super) struct Closed;

/// The error of everything that a closed store is asked for.
pub(super) fn closed() -> StoreError {
    StoreError::with_source(StoreErrorKind::Other, Closed)
}

struct State<T> {
    jobs: VecDeque<T>,
    closed: bool,
    /// Threads in [`pop`](Queue::pop) and [`gather`](Queue::gather): where none waits, none need be woken.
    waiting: usize,
    /// The number of jobs worth waking one for.
    wanted: usize,
}

impl<T> Queue<T> {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            state: Mutex::new(State { jobs: VecDeque::new(), closed: false, waiting: 0, wanted: 1 }),
            ready: Condvar::new(),
            room: Semaphore::new(capacity),
        }
    }

    /// Hands a job over, once there is room.
    ///
    /// # Cancel safety
    ///
    /// When it is dropped the job was not handed over, and the room is free.
    pub(super) async fn push(&self, job: T) -> Result<(), Closed> {
        let permit = self.room.acquire().await.map_err(|_| Closed)?;
        let mut state = self.state();
        if state.closed {
            return Err(Closed);
        }
        permit.forget(); // the pop gives it back
        state.jobs.push_back(job);
        let waiting = state.waiting > 0 && state.jobs.len() >= state.wanted;
        drop(state);
        if waiting {
            self.ready.notify_one();
        }
        Ok(())
    }

    /// Waits for a job, at most for `patience`.
    pub(super) fn pop(&self, patience: Duration) -> Popped<T> {
        let waiting = |state: &mut State<T>| state.jobs.is_empty() && !state.closed;
        let mut state = self.state();
        state.waiting += 1;
        let (mut state, _) =
            self.ready.wait_timeout_while(state, patience, waiting).unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        match state.jobs.pop_front() {
            Some(job) => {
                self.room.add_permits(1);
                Popped::Job(job)
            }
            None if state.closed => Popped::Closed,
            None => Popped::Idle,
        }
    }

    /// Waits until this number of jobs is here, at most for `patience`; answers how many there are. For a queue that one thread
    /// empties.
    pub(super) fn gather(&self, jobs: usize, patience: Duration) -> usize {
        let mut state = self.state();
        (state.waiting, state.wanted) = (state.waiting + 1, jobs);
        let waiting = |state: &mut State<T>| state.jobs.len() < state.wanted && !state.closed;
        let (mut state, _) =
            self.ready.wait_timeout_while(state, patience, waiting).unwrap_or_else(PoisonError::into_inner);
        (state.waiting, state.wanted) = (state.waiting - 1, 1);
        state.jobs.len()
    }

    /// The next job, if there is one now and `takes` likes it.
    pub(super) fn pop_if(&self, takes: impl FnOnce(&T) -> bool) -> Option<T> {
        let mut state = self.state();
        if !state.jobs.front().is_some_and(takes) {
            return None;
        }
        let job = state.jobs.pop_front();
        self.room.add_permits(1);
        job
    }

    /// Takes no more jobs. Those that are in it are still popped.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.room.close();
        self.ready.notify_all();
    }

    /// Takes no more jobs, and gives those up that are in it.
    pub(super) fn abandon(&self) -> VecDeque<T> {
        self.close();
        std::mem::take(&mut self.state().jobs)
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::{sync::Arc, thread};

    use super::*;

    #[tokio::test]
    async fn who_gathers_is_woken_when_all_are_here_and_not_before() {
        let queue = Arc::new(Queue::new(8));
        let gatherer = queue.clone();
        let gathered = thread::spawn(move || gatherer.gather(3, Duration::from_secs(60)));
        while queue.state().waiting == 0 {
            thread::yield_now();
        }
        for job in 0..3 {
            queue.push(job).await.ok().unwrap();
            thread::yield_now();
        }
        assert_eq!(gathered.join().unwrap(), 3);
        assert!(matches!(queue.pop(Duration::from_secs(60)), Popped::Job(0)));
        queue.gather(3, Duration::ZERO);
        assert_eq!(queue.state().wanted, 1, "one is enough again for who pops");
    }

    #[test]
    fn nobody_gathers_what_will_not_come() {
        let queue = Queue::<()>::new(8);
        queue.close();
        queue.gather(1, Duration::from_secs(60));
    }
}
