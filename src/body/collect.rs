use std::{pin::pin, time::Duration};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::timeout;

use super::room::{NoRoom, Room};

/// A request body, whole.
pub(crate) struct Collected {
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

/// Why a body was not collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CollectError {
    /// It is larger than the limit, or says that it will be.
    TooLarge,
    /// The client paused for too long.
    TooSlow,
    /// It broke off.
    Broken,
    /// There is no room for it beside the bodies of other requests.
    NoRoom,
}

/// Reads a body of at most `limit` bytes, whose frames come at most `idle` apart, as long as there is room for it. One
/// that finds no room is read to its end all the same, and dropped, so that its connection can be used on.
pub(crate) async fn collect<B>(
    body: B,
    limit: usize,
    idle: Duration,
    room: &Room,
) -> Result<Collected, CollectError>
where
    B: Body<Data = Bytes>,
{
    if body.size_hint().lower() > limit as u64 {
        return Err(CollectError::TooLarge);
    }
    let mut body = pin!(body);
    let mut data = Data::Nothing;
    let mut trailers = None;
    let mut left = limit;
    let mut held = Ok(room.hold());
    loop {
        let frame = match timeout(idle, body.frame()).await {
            Err(_) => return Err(CollectError::TooSlow),
            Ok(None) => {
                let body = held.map_err(|NoRoom| CollectError::NoRoom)?.keep(data.into_bytes());
                return Ok(Collected { body, trailers });
            }
            Ok(Some(Err(_))) => return Err(CollectError::Broken),
            Ok(Some(Ok(frame))) => frame,
        };
        match frame.into_data() {
            Ok(piece) => {
                left = left.checked_sub(piece.len()).ok_or(CollectError::TooLarge)?;
                held = held.and_then(|mut held| held.grow(limit - left).map(|()| held));
                match &held {
                    Ok(_) => data.push(piece),
                    Err(NoRoom) => data = Data::Nothing,
                }
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
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
        task::{Context, Poll},
    };

    use http_body::Frame;
    use http_body_util::Full;

    use super::*;

    /// A body of so many bytes, each in a frame of its own.
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

    #[tokio::test]
    async fn a_body_that_comes_byte_by_byte_takes_no_more_room_than_its_bytes() {
        let mut data = Data::Nothing;
        let mut body = pin!(Bytewise(100_000));
        while let Some(frame) = body.frame().await {
            data.push(frame.unwrap().into_data().unwrap());
        }
        let held = data.into_bytes().try_into_mut().unwrap().capacity();
        assert!(held < 400_000, "{held} bytes are held for a body of 100,000");
        let room = Room::new(1 << 20);
        assert_eq!(
            collect(Bytewise(100_000), 100_000, Duration::MAX, &room).await.unwrap().body.len(),
            100_000
        );
        let over = collect(Bytewise(100_001), 100_000, Duration::MAX, &room).await;
        assert_eq!(over.map(|_| ()).unwrap_err(), CollectError::TooLarge);
    }

    #[tokio::test]
    async fn a_body_of_one_frame_is_not_copied_and_trailers_are_kept() {
        let sent = Bytes::from_static(b"{}");
        let mut trailers = HeaderMap::new();
        trailers.insert("x-checksum", http::HeaderValue::from_static("abc"));
        let body = Full::new(sent.clone()).with_trailers(std::future::ready(Some(Ok(trailers))));
        let collected = collect(body, 2, Duration::MAX, &Room::new(1024)).await.unwrap();
        assert_eq!(collected.body.as_ptr(), sent.as_ptr());
        assert_eq!(collected.trailers.unwrap()["x-checksum"], "abc");
    }
}
