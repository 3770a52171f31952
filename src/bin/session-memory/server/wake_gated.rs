//! A future that is polled only after it was woken.
//!
//! * What it saves: two locks with every poll of a connection, 2,400 of 117,400 instructions of a request
//!   (`cargo bench --profile cost --features proxy --bench cost -- 'in memory: a request, 0 turns'`).
//! * Without it: a connection polls its two reasons to end with every piece of work, and each poll of a cancellation takes
//!   a lock that all connections share.
//! * What holds it: a property below compares it with the plain future.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use pin_project_lite::pin_project;

pin_project! {
    /// A future that passes on a poll only after it was woken, or when the task has changed.
    pub(crate) struct WakeGated<F> {
        #[pin]
        inner: F,
        flag: Option<Arc<WakeFlag>>,
    }
}

struct WakeFlag {
    woken: AtomicBool,
    task: Waker,
}

impl Wake for WakeFlag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

impl<F> WakeGated<F> {
    pub(crate) fn new(inner: F) -> Self {
        Self { inner, flag: None }
    }
}

impl<F: Future> Future for WakeGated<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let known = this.flag.as_ref().filter(|flag| flag.task.will_wake(cx.waker()));
        let flag = match known {
            Some(flag) if !flag.woken.load(Ordering::Relaxed) => return Poll::Pending,
            Some(flag) => {
                flag.woken.swap(false, Ordering::Acquire);
                Arc::clone(flag)
            }
            None => Arc::new(WakeFlag { woken: AtomicBool::new(false), task: cx.waker().clone() }),
        };
        *this.flag = Some(Arc::clone(&flag));
        this.inner.poll(&mut Context::from_waker(&Waker::from(flag)))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use proptest::prelude::*;
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn it_is_polled_when_it_was_woken_and_not_otherwise() {
        let (notify, mut polls) = (Notify::new(), 0);
        let notified = notify.notified();
        let mut inner = std::pin::pin!(notified);
        let counting = poll_fn(|cx| {
            polls += 1;
            inner.as_mut().poll(cx)
        });
        let mut gated = std::pin::pin!(WakeGated::new(counting));
        for _ in 0..3 {
            let polled = poll_fn(|cx| Poll::Ready(gated.as_mut().poll(cx))).await;
            assert!(polled.is_pending());
        }
        notify.notify_one();
        gated.await;
        assert_eq!(polls, 2);
    }

    #[tokio::test]
    async fn it_wakes_the_task_that_it_was_moved_to() {
        let notify = Arc::new(Notify::new());
        let mut gated = Box::pin(WakeGated::new({
            let notify = Arc::clone(&notify);
            async move { notify.notified().await }
        }));
        let polled = poll_fn(|cx| Poll::Ready(gated.as_mut().poll(cx))).await;
        assert!(polled.is_pending());
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(gated);
        tokio::task::yield_now().await;
        notify.notify_one();
        assert!(tasks.join_next().await.is_some_and(|ended| ended.is_ok()));
    }

    proptest! {
        #[test]
        fn a_gated_future_is_ready_when_a_plain_one_is(events in prop::collection::vec(any::<bool>(), 0..20)) {
            let notify = Notify::new();
            let mut plain = Box::pin(notify.notified());
            let mut gated = Box::pin(WakeGated::new(notify.notified()));
            for is_poll in events {
                if !is_poll {
                    notify.notify_waiters();
                    continue;
                }
                let mut cx = Context::from_waker(Waker::noop());
                let polled = (plain.as_mut().poll(&mut cx), gated.as_mut().poll(&mut cx));
                prop_assert_eq!(polled.0, polled.1);
                if polled.0.is_ready() {
                    plain = Box::pin(notify.notified());
                    gated = Box::pin(WakeGated::new(notify.notified()));
                }
            }
        }
    }
}
