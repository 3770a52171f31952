//! The `send_timeout` of one HTTP/2 stream: ends a stream whose client takes nothing of its reply.
//!
//! * What it saves: the slot and the buffers of a request whose client has shut its window. Without a limit, 21 such
//!   connections keep every other client out.
//! * Without it: hyper waits for the window without a limit. Neither hyper nor h2 offers one for a stream; a
//!   connection that takes nothing at all, as in HTTP/1, is ended by [`ClientSocket`](super::client_socket).
//! * What holds it: `tests/proxy/slow.rs`, and the tests below.
//!
//! hyper polls a reply's body for its next frame once the client's window has taken a part of the last one. So the
//! stream's task records how its body answered last. After a frame, a body that is not polled again within the limit
//! has a client that takes nothing. The record is a thread-local, since hyper owns the body and the task apart from
//! each other, and polls one within the other.

use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::traffic::LazyTimeout;

/// The largest frame of an HTTP/2 reply, in bytes: a client must take one frame within the limit.
const LARGEST: usize = 16 * 1024;

thread_local! {
    /// The last answer of a reply's body on this thread.
    static LAST: Cell<Option<Answered>> = const { Cell::new(None) };
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Answered {
    /// Nothing to send.
    Nothing,
    /// A frame to send, or the end.
    Frame,
}

pin_project! {
    /// The body of an HTTP/2 reply, cut into frames of at most [`LARGEST`] bytes, which records its answers.
    pub(super) struct ObservedBody<B> {
        #[pin]
        inner: B,
        // The part of the last frame that exceeded the largest one.
        rest: Bytes,
    }
}

impl<B> ObservedBody<B> {
    pub(super) fn new(inner: B) -> Self {
        Self { inner, rest: Bytes::new() }
    }
}

impl<B: Body<Data = Bytes>> Body for ObservedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        if !this.rest.is_empty() {
            let next = this.rest.split_to(this.rest.len().min(LARGEST));
            LAST.set(Some(Answered::Frame));
            return Poll::Ready(Some(Ok(Frame::data(next))));
        }
        let mut polled = this.inner.poll_frame(cx);
        LAST.set(Some(if polled.is_ready() { Answered::Frame } else { Answered::Nothing }));
        if let Poll::Ready(Some(Ok(frame))) = &mut polled
            && let Some(data) = frame.data_mut()
            && data.len() > LARGEST
        {
            *this.rest = data.split_off(LARGEST);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.inner.size_hint(), self.rest.len() as u64);
        if rest > 0 {
            if let Some(upper) = hint.upper() {
                hint.set_upper(upper + rest);
            }
            hint.set_lower(hint.lower() + rest);
        }
        hint
    }
}

pin_project! {
    /// The task of an HTTP/2 stream. It ends when the client takes nothing within the limit.
    ///
    /// Its end resets the stream, and the reply is dropped as if the client had left.
    pub(super) struct StreamTask<F> {
        #[pin]
        task: F,
        limit: Option<Duration>,
        // The body's last answer.
        last: Answered,
        stalled: LazyTimeout,
    }
}

impl<F> StreamTask<F> {
    /// `limit` is the longest time for which the client may take nothing.
    pub(super) fn new(task: F, limit: Option<Duration>) -> Self {
        Self { task, limit, last: Answered::Nothing, stalled: LazyTimeout::default() }
    }
}

impl<F: Future<Output = ()>> Future for StreamTask<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        LAST.set(None);
        if this.task.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if let Some(answered) = LAST.get() {
            *this.last = answered;
            this.stalled.clear();
        }
        let (Answered::Frame, Some(limit)) = (*this.last, *this.limit) else { return Poll::Pending };
        ready!(this.stalled.poll(limit, cx));
        tracing::debug!(?limit, "a client took nothing of its reply (send_timeout)");
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{convert::Infallible, sync::Arc};

    use http_body_util::{BodyExt, Full};
    use tokio::{
        sync::mpsc,
        time::{Instant, sleep},
    };

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    /// A body whose frames come from a channel.
    struct ChannelBody(mpsc::Receiver<Bytes>);

    impl Body for ChannelBody {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            self.0.poll_recv(cx).map(|data| data.map(|data| Ok(Frame::data(data))))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_ends_its_stream_and_what_belongs_to_it() {
        let (source, frames) = mpsc::channel(2);
        source.send(Bytes::from_static(b"x")).await.unwrap();
        let mut body = ObservedBody::new(ChannelBody(frames));
        let task = async move {
            body.frame().await.unwrap().unwrap();
            std::future::pending::<()>().await;
        };
        let began = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(StreamTask::new(task, Some(LIMIT)));
        tasks.join_all().await;
        assert!(began.elapsed() >= LIMIT && began.elapsed() < LIMIT + Duration::from_secs(1));
        assert!(source.is_closed(), "the reply is still held");
    }

    #[tokio::test(start_paused = true)]
    async fn neither_a_slow_reader_nor_a_slow_source_is_a_client_that_takes_nothing() {
        let (source, frames) = mpsc::channel(2);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            for _ in 0..5 {
                sleep(10 * LIMIT).await;
                source.send(Bytes::from_static(b"x")).await.unwrap();
            }
        });
        let read = Arc::new(tokio::sync::Semaphore::new(0));
        let count = Arc::clone(&read);
        let mut body = ObservedBody::new(ChannelBody(frames));
        let task = async move {
            while let Some(frame) = body.frame().await {
                frame.unwrap();
                count.add_permits(1);
                sleep(LIMIT * 9 / 10).await;
            }
        };
        tasks.spawn(StreamTask::new(task, Some(LIMIT)));
        tasks.join_all().await;
        assert_eq!(read.available_permits(), 5, "the stream was cut");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_a_client_may_take_its_time() {
        let mut body = ObservedBody::new(Full::new(Bytes::from_static(b"x")));
        let task = async move {
            body.frame().await.unwrap().unwrap();
            sleep(1000 * LIMIT).await;
        };
        let began = Instant::now();
        StreamTask::new(Box::pin(task), None).await;
        assert_eq!(began.elapsed(), 1000 * LIMIT);
    }

    #[tokio::test]
    async fn large_frames_go_out_in_pieces_and_the_length_stays_known() {
        let sent: Bytes = (0..3 * LARGEST + 1).map(|at| at as u8).collect();
        let mut body = ObservedBody::new(Full::new(sent.clone()));
        let mut got = Vec::new();
        while !body.is_end_stream() {
            assert_eq!(body.size_hint().exact(), Some((sent.len() - got.len()) as u64));
            let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert!(piece.len() <= LARGEST);
            got.extend_from_slice(&piece);
        }
        assert_eq!(got, sent);
        assert!(body.frame().await.is_none());
    }
}
