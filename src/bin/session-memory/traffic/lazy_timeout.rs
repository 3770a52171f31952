//! A cheap timeout for waits that rarely expire: the timer is re-armed only when it fires.
//!
//! A reply of 1,000 events waits 1,000 times for its next event. A timer for each wait would be set and taken back
//! 1,000 times; here one timer is set, and when it fires it moves to the end of the wait at hand. That saves 780 of 13,400
//! instructions of an event (`cargo bench --profile cost --features proxy --bench cost -- 'in memory: an event'`).

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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::future::poll_fn;

    use proptest::prelude::*;
    use tokio::time::{sleep, timeout};

    use super::*;

    const LIMIT: Duration = Duration::from_millis(100);

    /// The first wait that is too long, and the time until then.
    async fn expired(waits: &[Duration], lazy: bool) -> (usize, Duration) {
        let (began, mut limit) = (Instant::now(), LazyTimeout::default());
        let within = async |wait, limit: &mut LazyTimeout| match lazy {
            false => timeout(LIMIT, sleep(wait)).await.is_ok(),
            true => tokio::select! {
                () = sleep(wait) => true,
                () = poll_fn(|cx| limit.poll(LIMIT, cx)) => false,
            },
        };
        for (at, wait) in waits.iter().enumerate() {
            if !within(*wait, &mut limit).await {
                return (at, began.elapsed());
            }
            limit.clear();
        }
        (waits.len(), began.elapsed())
    }

    proptest! {
        #[test]
        fn a_wait_is_too_long_exactly_when_a_timer_of_its_own_says_so(
            waits in prop::collection::vec(prop_oneof![0_u64..95, 105_u64..300], 0..12),
        ) {
            let waits: Vec<_> = waits.into_iter().map(Duration::from_millis).collect();
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            let (lazy, plain) = runtime.block_on(async { (expired(&waits, true).await, expired(&waits, false).await) });
            prop_assert_eq!(lazy.0, plain.0);
            // Tokio's timers count in milliseconds, rounded up.
            prop_assert!(lazy.1.abs_diff(plain.1) <= Duration::from_millis(2));
        }
    }
}
