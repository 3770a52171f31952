use std::{future::Future, pin::pin};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::{Instant, error::Elapsed, timeout_at};

use super::buffer_budget::{BufferBudget, BufferFull};
use crate::config::Limits;

/// A request body, whole.
pub(crate) struct Collected {
    pub(crate) body: Bytes,
    /// Boxed: they hardly ever come, and a body is moved often.
    pub(crate) trailers: Option<Box<HeaderMap>>,
}

/// Why a body was not collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CollectError {
    /// It is larger than the limit, or says that it will be.
    TooLarge,
    /// The client paused for too long.
    TooSlow,
    /// All of it took too long.
    TooLate,
    /// It broke off.
    Broken,
    /// There is no room for it beside the bodies of other requests.
    NoRoom,
    /// Larger than the whole buffer.
    NeverRoom,
}

/// Reads a body within the limits, as long as there is room for it. One that finds no room is read to its end all the
/// same, and dropped, so that its connection can be used on.
pub(crate) async fn collect<B>(
    body: B,
    limits: &Limits,
    room: &BufferBudget,
) -> Result<Collected, CollectError>
where
    B: Body<Data = Bytes>,
{
    let limit = limits.max_request_body;
    let length = body.size_hint().lower();
    if length > limit as u64 {
        return Err(CollectError::TooLarge);
    }
    if !room.fits([length as usize]) {
        return Err(CollectError::NeverRoom);
    }
    let mut body = pin!(body);
    let mut data = Data::Nothing;
    let mut trailers = None;
    let mut left = limit;
    let mut held = Ok(room.hold());
    let mut now = Instant::now();
    let end = now.checked_add(limits.body_deadline);
    loop {
        let pause = now.checked_add(limits.body_read_timeout);
        let frame = match before(pause.into_iter().chain(end).min(), body.frame()).await {
            Err(_) if end.is_some_and(|end| end <= Instant::now()) => return Err(CollectError::TooLate),
            Err(_) => return Err(CollectError::TooSlow),
            Ok(None) => {
                let body = held.map_err(|BufferFull| CollectError::NoRoom)?.keep(data.into_bytes());
                return Ok(Collected { body, trailers });
            }
            Ok(Some(Err(_))) => return Err(CollectError::Broken),
            Ok(Some(Ok(frame))) => frame,
        };
        now = Instant::now();
        match frame.into_data() {
            Ok(piece) => {
                left = left.checked_sub(piece.len()).ok_or(CollectError::TooLarge)?;
                if !room.fits([limit - left]) {
                    return Err(CollectError::NeverRoom);
                }
                held = held.and_then(|mut held| held.grow(limit - left).map(|()| held));
                match &held {
                    Ok(_) => data.push(piece),
                    Err(BufferFull) => data = Data::Nothing,
                }
            }
            Err(frame) => trailers = frame.into_trailers().ok().map(Box::new),
        }
    }
}

/// Waits until then, if there is a limit.
async fn before<F: Future>(due: Option<Instant>, future: F) -> Result<F::Output, Elapsed> {
    match due {
        Some(due) => timeout_at(due, future).await,
        None => Ok(future.await),
    }
}

/// The bytes so far. One frame is kept as it is; several are copied together, since a list of frames could
/// take many times the room of what is in them.
enum Data {
    Nothing,
    Frame(Bytes),
    Joined(BytesMut),
}

impl Data {
    fn push(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        match self {
            Self::Nothing => *self = Self::Frame(piece),
            Self::Frame(first) => {
                let mut joined = BytesMut::with_capacity(first.len() + piece.len());
                joined.extend_from_slice(first);
                joined.extend_from_slice(&piece);
                *self = Self::Joined(joined);
            }
            Self::Joined(joined) => joined.extend_from_slice(&piece),
        }
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::Nothing => Bytes::new(),
            Self::Frame(only) => only,
            Self::Joined(joined) => joined.freeze(),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::{
        convert::Infallible,
        pin::Pin,
        task::{Context, Poll, ready},
        time::Duration,
    };

    use http_body::Frame;
    use http_body_util::Full;
    use tokio::time::{Sleep, sleep};

    use super::*;

    /// A body of the given length, each byte in a frame of its own.
    struct Bytewise(usize);

    impl Body for Bytewise {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let left = self.0.checked_sub(1);
            self.0 = left.unwrap_or_default();
            Poll::Ready(left.map(|_| Ok(Frame::data(Bytes::from_static(b"x")))))
        }
    }

    /// A body whose bytes come one by one, each after a pause.
    struct Dripped {
        left: usize,
        every: Duration,
        sleep: Pin<Box<Sleep>>,
    }

    impl Dripped {
        fn new(left: usize, every: Duration) -> Self {
            Self { left, every, sleep: Box::pin(sleep(every)) }
        }
    }

    impl Body for Dripped {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            if self.left == 0 {
                return Poll::Ready(None);
            }
            ready!(self.sleep.as_mut().poll(cx));
            self.left -= 1;
            self.sleep = Box::pin(sleep(self.every));
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
        }
    }

    /// Limits of size alone.
    fn patient(bytes: usize) -> Limits {
        Limits::default()
            .with_max_request_body(bytes)
            .with_body_read_timeout(Duration::MAX)
            .with_body_deadline(Duration::MAX)
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips_in_has_a_limit_and_one_that_comes_in_time_does_not_feel_it() {
        let room = BufferBudget::new(1 << 20);
        let limits = Limits::default();
        let (pause, deadline) = (limits.body_read_timeout, limits.body_deadline);
        let second = Duration::from_secs(1);
        let began = Instant::now();
        let dripped = collect(Dripped::new(1 << 20, pause - second), &limits, &room).await;
        assert_eq!(dripped.map(|_| ()).unwrap_err(), CollectError::TooLate);
        assert!(began.elapsed() >= deadline && began.elapsed() < deadline + second);
        assert!(room.hold().grow(1 << 20).is_ok(), "it still holds room");

        let pieces = 10;
        let slow = Dripped::new(pieces, pause - second);
        assert_eq!(collect(slow, &limits, &room).await.unwrap().body.len(), pieces);
        let paused = collect(Dripped::new(2, pause + second), &limits, &room).await;
        assert_eq!(
            paused.map(|_| ()).unwrap_err(),
            CollectError::TooSlow,
            "the pause is told from the whole"
        );
    }

    #[tokio::test]
    async fn a_body_for_which_there_can_never_be_room_is_told_from_one_that_comes_at_a_bad_time() {
        let room = BufferBudget::new(4096);
        let limits = patient(1 << 20);
        let refused = |body| async { collect(body, &limits, &room).await.map(|_| ()).unwrap_err() };
        assert_eq!(refused(Bytewise(4097)).await, CollectError::NeverRoom);
        let known = Full::new(Bytes::from(vec![b'x'; 4097]));
        assert_eq!(collect(known, &limits, &room).await.map(|_| ()).unwrap_err(), CollectError::NeverRoom);
        let mut other = room.hold();
        other.grow(1).unwrap();
        assert_eq!(refused(Bytewise(4096)).await, CollectError::NoRoom);
        drop(other);
        assert_eq!(collect(Bytewise(4096), &limits, &room).await.unwrap().body.len(), 4096);
    }

    #[tokio::test]
    async fn a_body_that_comes_byte_by_byte_takes_no_more_room_than_its_bytes() {
        let mut data = Data::Nothing;
        let mut body = pin!(Bytewise(100_000));
        while let Some(frame) = body.frame().await {
            data.push(frame.unwrap().into_data().unwrap());
        }
        let held = data.into_bytes().try_into_mut().unwrap().capacity();
        assert!(held < 400_000, "{held} bytes are held for a body of 100,000");
        let room = BufferBudget::new(1 << 20);
        let limits = patient(100_000);
        assert_eq!(collect(Bytewise(100_000), &limits, &room).await.unwrap().body.len(), 100_000);
        let over = collect(Bytewise(100_001), &limits, &room).await;
        assert_eq!(over.map(|_| ()).unwrap_err(), CollectError::TooLarge);
    }

    #[tokio::test]
    async fn a_body_of_one_frame_is_not_copied_and_trailers_are_kept() {
        let sent = Bytes::from_static(b"{}");
        let mut trailers = HeaderMap::new();
        trailers.insert("x-checksum", http::HeaderValue::from_static("abc"));
        let body = Full::new(sent.clone()).with_trailers(std::future::ready(Some(Ok(trailers))));
        let collected = collect(body, &patient(2), &BufferBudget::new(1024)).await.unwrap();
        assert_eq!(collected.body.as_ptr(), sent.as_ptr());
        assert_eq!(collected.trailers.unwrap()["x-checksum"], "abc");
    }
}
