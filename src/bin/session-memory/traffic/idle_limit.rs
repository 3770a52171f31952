//! Time limits of bodies that pass through: a source that sends nothing for the limit ends its body in an error.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use pin_project_lite::pin_project;

use super::LazyTimeout;
use crate::error::BoxError;

/// A body whose source sent nothing for the limit.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stalled {
    #[error("the client sent nothing more of its request within {0:?} (body_read_timeout)")]
    Client(Duration),
    #[error("the upstream sent nothing more of its reply within {0:?} (idle_timeout)")]
    Upstream(Duration),
}

pin_project! {
    /// A body that ends in an error when its source stalls.
    ///
    /// Only the time counts in which a reader waits for a frame: a slow reader does not make its source late.
    pub(crate) struct IdleLimited<B> {
        #[pin]
        inner: B,
        limit: Option<Duration>,
        stalled: fn(Duration) -> Stalled,
        idle: LazyTimeout,
    }
}

/// Reads and drops up to `most` bytes of a body, so that its connection can carry the next request.
pub(crate) async fn discard<B>(body: B, most: usize)
where
    B: Body<Data = Bytes>,
{
    let mut body = std::pin::pin!(body);
    let mut left = most;
    while let Some(Ok(frame)) = body.frame().await {
        let Some(less) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { return };
        left = less;
    }
}

impl<B> IdleLimited<B> {
    /// `limit` is the longest wait for one frame.
    pub(crate) fn new(inner: B, limit: Option<Duration>, stalled: fn(Duration) -> Stalled) -> Self {
        Self { inner, limit, stalled, idle: LazyTimeout::default() }
    }
}

impl<B> Body for IdleLimited<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        if let Poll::Ready(frame) = this.inner.poll_frame(cx) {
            this.idle.clear();
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let Some(limit) = *this.limit else { return Poll::Pending };
        ready!(this.idle.poll(limit, cx));
        Poll::Ready(Some(Err((this.stalled)(limit).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use http_body_util::Full;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_has_had_its_turn_gets_its_timer_all_the_same() {
        let (_sender, receiver) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, BoxError>>(1);
        let mut body = std::pin::pin!(IdleLimited::new(
            Receiver(receiver),
            Some(Duration::from_secs(5)),
            Stalled::Upstream
        ));
        let (busy, mut work) = tokio::sync::mpsc::channel(1000);
        (0..1000).for_each(|number| busy.try_send(number).unwrap());
        let mut first = true;
        let stalled = std::future::poll_fn(|cx| {
            // Once, until the task's budget is spent.
            while std::mem::take(&mut first) {
                while work.poll_recv(cx).is_ready() {}
            }
            body.as_mut().poll_frame(cx)
        });
        let stalled = tokio::time::timeout(Duration::from_secs(60), stalled).await;
        assert!(stalled.unwrap().unwrap().is_err(), "it never ends");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stalled_body_ends_in_an_error_and_not_in_an_end() {
        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, BoxError>>(1);
        let body = Receiver(receiver);
        let mut body =
            std::pin::pin!(IdleLimited::new(body, Some(Duration::from_secs(5)), Stalled::Upstream));
        sender.send(Ok(Frame::data(Bytes::from_static(b"x")))).await.unwrap();
        assert!(body.frame().await.unwrap().is_ok());
        let error = body.frame().await.unwrap().unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(Stalled::Upstream(_))), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_of_a_slow_reader_does_not_count() {
        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, BoxError>>(1);
        let body = Receiver(receiver);
        let mut body =
            std::pin::pin!(IdleLimited::new(body, Some(Duration::from_secs(5)), Stalled::Upstream));
        for _ in 0..3 {
            sender.send(Ok(Frame::data(Bytes::from_static(b"x")))).await.unwrap();
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert!(body.frame().await.unwrap().is_ok(), "the reader was slow, not the source");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_wait_has_all_of_the_limit_and_no_more() {
        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, BoxError>>(1);
        let limit = Duration::from_secs(5);
        let mut body = std::pin::pin!(IdleLimited::new(Receiver(receiver), Some(limit), Stalled::Upstream));
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            for _ in 0..4 {
                tokio::time::sleep(Duration::from_secs(4)).await;
                sender.send(Ok(Frame::data(Bytes::from_static(b"x")))).await.unwrap();
            }
            sender
        });
        for _ in 0..4 {
            assert!(body.frame().await.unwrap().is_ok(), "a frame that came in time was too late");
        }
        let last = Instant::now();
        assert!(body.frame().await.unwrap().is_err());
        // Tokio's timers count in milliseconds, rounded up.
        assert!(last.elapsed() >= limit && last.elapsed() < limit + Duration::from_millis(10));
    }

    #[test]
    fn the_length_stays_known() {
        let body = IdleLimited::new(Full::new(Bytes::from_static(b"four")), None, Stalled::Client);
        assert_eq!(body.size_hint().exact(), Some(4));
    }

    struct Receiver(tokio::sync::mpsc::Receiver<Result<Frame<Bytes>, BoxError>>);

    impl Body for Receiver {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            self.0.poll_recv(cx)
        }
    }
}
