use std::{pin::pin, time::Duration};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::timeout;

/// A request body, whole.
#[derive(Default)]
pub(crate) struct Collected {
    pub(crate) frames: Vec<Bytes>,
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
}

/// Reads a body of at most `limit` bytes, whose frames come at most `idle` apart.
pub(crate) async fn collect<B>(body: B, limit: usize, idle: Duration) -> Result<Collected, CollectError>
where
    B: Body<Data = Bytes>,
{
    if body.size_hint().lower() > limit as u64 {
        return Err(CollectError::TooLarge);
    }
    let mut body = pin!(body);
    let mut collected = Collected::default();
    let mut room = limit;
    loop {
        let frame = match timeout(idle, body.frame()).await {
            Err(_) => return Err(CollectError::TooSlow),
            Ok(None) => return Ok(collected),
            Ok(Some(Err(_))) => return Err(CollectError::Broken),
            Ok(Some(Ok(frame))) => frame,
        };
        match frame.into_data() {
            Ok(data) => {
                room = room.checked_sub(data.len()).ok_or(CollectError::TooLarge)?;
                collected.push(data);
            }
            Err(frame) => collected.trailers = frame.into_trailers().ok(),
        }
    }
}

impl Collected {
    /// The bytes in one piece; copied only if they came in several.
    pub(crate) fn joined(&self) -> Bytes {
        if let [only] = self.frames.as_slice() {
            return only.clone();
        }
        let mut joined = BytesMut::with_capacity(self.frames.iter().map(Bytes::len).sum());
        self.frames.iter().for_each(|frame| joined.extend_from_slice(frame));
        joined.freeze()
    }

    fn push(&mut self, data: Bytes) {
        if !data.is_empty() {
            self.frames.push(data);
        }
    }
}
