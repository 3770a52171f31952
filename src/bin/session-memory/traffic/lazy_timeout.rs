//! A cheap timeout for waits that rarely expire: the timer is re-armed only when it fires.
//!
//! A reply of 1,000 events waits 1,000 times for its next event. A timer for each wait would be set and taken back
//! 1,000 times; here one timer is set, and when it fires it moves to the end of the wait at hand.

use std::{
    pin::{Pin, pin},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// The time limit of one wait after the other.
#[derive(Default)]
pub(crate) struct LazyTimeout {
    /// The end of the wait at hand.
    due: Option<Instant>,
    /// The timer, set for this wait or for an earlier one.
    sleep: Option<Pin<Box<Sleep>>>,
    /// The task that the timer wakes.
    task: Option<Waker>,
}

impl LazyTimeout {
    /// Ends the wait at hand.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.due = None;
    }

    /// Ready when the wait has taken `limit`. A wait begins with the first call after [`clear`](Self::clear).
    #[inline]
    pub(crate) fn poll(&mut self, limit: Duration, cx: &mut Context<'_>) -> Poll<()> {
        let due = *self.due.get_or_insert_with(|| Instant::now() + limit);
        let wakes_us = self.task.as_ref().is_some_and(|task| task.will_wake(cx.waker()));
        match &self.sleep {
            Some(sleep) if wakes_us && !sleep.is_elapsed() => Poll::Pending,
            _ => self.set(due, cx),
        }
    }

    /// Arms the timer for this task.
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

/// Polls a timer outside of tokio's task budget: without budget left, the timer would not be armed.
fn set(sleep: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<()> {
    pin!(tokio::task::unconstrained(sleep)).poll(cx)
}
