//! A time limit for waits of which there are many, and of which hardly one is too long.

use std::{
    pin::{Pin, pin},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// The limit of one wait after the other. Its timer is moved when it fires, and not with every wait.
#[derive(Default)]
pub(crate) struct Deadline {
    /// When the wait at hand is too long.
    due: Option<Instant>,
    /// Set for this wait or for one before it.
    sleep: Option<Pin<Box<Sleep>>>,
    /// Whom the timer wakes.
    task: Option<Waker>,
}

impl Deadline {
    /// The wait is over.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.due = None;
    }

    /// Ready when the wait has taken so long. It begins with the first call, and with the first after
    /// [`clear`](Self::clear).
    #[inline]
    pub(crate) fn poll(&mut self, limit: Duration, cx: &mut Context<'_>) -> Poll<()> {
        let due = *self.due.get_or_insert_with(|| Instant::now() + limit);
        let wakes_us = self.task.as_ref().is_some_and(|task| task.will_wake(cx.waker()));
        match &self.sleep {
            Some(sleep) if wakes_us && !sleep.is_elapsed() => Poll::Pending,
            _ => self.set(due, cx),
        }
    }

    /// Sets the timer, for this task.
    fn set(&mut self, due: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(due)));
        self.task = Some(cx.waker().clone());
        ready!(set(sleep.as_mut(), cx));
        if Instant::now() < due {
            sleep.as_mut().reset(due);
            ready!(set(sleep.as_mut(), cx));
        }
        Poll::Ready(())
    }
}

/// Polls a timer, also in a task that has had its turn: that one would be asked to come again, and the timer not set.
fn set(sleep: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<()> {
    pin!(tokio::task::unconstrained(sleep)).poll(cx)
}
