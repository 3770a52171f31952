use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::{Sleep, sleep, timeout};

use super::{BoxError, ReplyWithheld, recording::Recording};
use crate::{
    commit::{Draining, Outcome, Submitted},
    config::{OnAppendError, OnDisconnect},
    failpoint::{self, Point},
    session::SessionKey,
    telemetry,
};

/// Forwards a reply's frames as they come, lets the recording listen, and holds the terminal bytes until the
/// turn is stored.
///
/// The end of a body shows in three ways: a `None`, `is_end_stream`, or the server dropping a body whose
/// content-length is satisfied. All three are held back. A drop before the end means that the client left,
/// unless the reply had ended by itself.
pub(crate) struct Tee<B> {
    /// Boxed, so that a client that leaves can be survived by it: see [`OnDisconnect::Drain`].
    inner: Option<Pin<Box<B>>>,
    /// Gone once the reply has ended.
    recording: Option<Recording>,
    reactions: Reactions,
    /// What the upstream's content-length still promises.
    left: Option<u64>,
    /// The end, until the turn is stored.
    held: VecDeque<Frame<Bytes>>,
    commit: Option<CommitWait>,
    /// Reads the reply on for a client that left. A function pointer, so that dropping needs no bounds.
    drain: fn(Pin<Box<B>>, Recording, Draining),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Reactions {
    pub(crate) commit_wait: Duration,
    pub(crate) on_append_error: OnAppendError,
    pub(crate) on_disconnect: OnDisconnect,
}

struct CommitWait {
    submitted: Submitted,
    patience: Pin<Box<Sleep>>,
    key: SessionKey,
}

impl<B> Tee<B>
where
    B: Body<Data = Bytes> + Send + 'static,
{
    pub(crate) fn new(inner: B, recording: Recording, reactions: Reactions) -> Self {
        Self {
            left: inner.size_hint().exact(),
            inner: Some(Box::pin(inner)),
            recording: Some(recording),
            reactions,
            held: VecDeque::new(),
            commit: None,
            drain: read_on,
        }
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>>
    where
        B::Error: Into<BoxError>,
    {
        loop {
            if let Some(commit) = &mut self.commit {
                let delivered = ready!(commit.poll(self.reactions.on_append_error, cx));
                self.commit = None;
                if let Err(withheld) = delivered {
                    self.inner = None;
                    self.held.clear();
                    return Poll::Ready(Some(Err(withheld.into())));
                }
            }
            if let Some(frame) = self.held.pop_front() {
                return Poll::Ready(Some(Ok(frame)));
            }
            let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
            match ready!(inner.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Some(frame) = self.take(frame) {
                        return Poll::Ready(Some(Ok(frame)));
                    }
                }
                Some(Err(error)) => {
                    // Broken off: what was said so far is no reply, and the cut stays a cut.
                    self.inner = None;
                    if let Some(recording) = self.recording.take() {
                        telemetry::broken(&recording.turn.key);
                    }
                    return Poll::Ready(Some(Err(error.into())));
                }
                None => {
                    self.inner = None;
                    self.end();
                }
            }
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.nothing_waits() && self.inner.as_ref().is_none_or(|inner| inner.is_end_stream())
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        let inner = self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), |inner| inner.size_hint());
        let held = self.held.iter().filter_map(Frame::data_ref);
        let waiting: u64 = held.map(|data| data.len() as u64).sum();
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + waiting);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + waiting);
        }
        hint
    }

    fn nothing_waits(&self) -> bool {
        self.held.is_empty() && self.commit.is_none() && self.recording.is_none()
    }

    /// Sorts a frame into what may go out now and what must wait.
    fn take(&mut self, frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
        let Some(recording) = &mut self.recording else { return Some(frame) };
        let mut data = match frame.into_data() {
            Ok(data) => data,
            Err(trailers) => {
                self.held.push_back(trailers);
                self.end();
                return None;
            }
        };
        let terminal = recording.feed(&data);
        self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
        let last = self.left == Some(0) || self.inner.as_ref().is_some_and(|inner| inner.is_end_stream());
        match terminal.or(last.then_some(0)) {
            None => Some(Frame::data(data)),
            Some(offset) => {
                self.end();
                if self.commit.is_none() {
                    return Some(Frame::data(data));
                }
                let rest = data.split_off(offset.min(data.len()));
                self.held.push_back(Frame::data(rest));
                (!data.is_empty()).then(|| Frame::data(data))
            }
        }
    }

    /// The reply has ended: starts the commit that its last bytes wait for.
    fn end(&mut self) {
        let Some(recording) = self.recording.take() else { return };
        let key = recording.turn.key.clone();
        self.commit = match recording.finish() {
            None => None,
            Some(Submitted::Done(Outcome::Stored)) => None,
            Some(submitted) => {
                Some(CommitWait { patience: Box::pin(sleep(self.reactions.commit_wait)), submitted, key })
            }
        };
    }
}

impl CommitWait {
    /// Whether the end may go out.
    fn poll(&mut self, policy: OnAppendError, cx: &mut Context<'_>) -> Poll<Result<(), ReplyWithheld>> {
        let stored = match &mut self.submitted {
            Submitted::Done(outcome) => *outcome == Outcome::Stored,
            Submitted::Waiting(outcome) => match Pin::new(outcome).poll(cx) {
                Poll::Ready(outcome) => outcome == Ok(Outcome::Stored),
                Poll::Pending => {
                    ready!(self.patience.as_mut().poll(cx));
                    telemetry::unacknowledged(&self.key, policy == OnAppendError::Deliver);
                    false
                }
            },
        };
        Poll::Ready(if stored || policy == OnAppendError::Deliver { Ok(()) } else { Err(ReplyWithheld) })
    }
}

impl<B> Drop for Tee<B> {
    /// The client has left, or the server has all that content-length promised; then there is no recording.
    fn drop(&mut self) {
        let Some(recording) = self.recording.take() else { return failpoint::hit(Point::Ended) };
        match (self.reactions.on_disconnect, self.inner.take()) {
            (OnDisconnect::Drain, Some(inner)) => match recording.commits.room_to_drain(recording.queue) {
                Some(room) => (self.drain)(inner, recording, room),
                None => recording.interrupt(),
            },
            (OnDisconnect::Discard, _) if !recording.is_finished() => {
                telemetry::disconnected(&recording.turn.key, false);
            }
            _ => recording.interrupt(),
        }
    }
}

/// How long a reply that has finished is read on for what may follow its `finish_reason`.
const AFTER_FINISH: Duration = Duration::from_secs(5);
/// How long an upstream may be silent while its reply is read on; then what was said is kept as interrupted.
const SILENCE: Duration = Duration::from_secs(5 * 60);

/// Reads the rest of a reply whose client has left, in a tracked task, and stores the turn.
fn read_on<B>(mut inner: Pin<Box<B>>, mut recording: Recording, room: Draining)
where
    B: Body<Data = Bytes> + Send + 'static,
{
    let commits = recording.commits.clone();
    let runtime = recording.runtime.clone();
    commits.spawn(&runtime, async move {
        let _room = room;
        loop {
            // An upstream need not end after its last word.
            let patience = if recording.is_finished() { AFTER_FINISH } else { SILENCE };
            let frame = match timeout(patience, inner.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(_))) => return telemetry::broken(&recording.turn.key),
                Ok(None) => break,
                Err(_) => return recording.interrupt(),
            };
            if frame.data_ref().is_some_and(|data| recording.feed(data).is_some()) {
                break;
            }
        }
        drop(recording.finish());
    });
}
