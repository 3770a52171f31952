use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::Collected;

pin_project! {
    /// The request body that the inner service gets: the client's own, or one with the history in it.
    ///
    /// Its error is the client body's. A body with history has a known length.
    pub struct RequestBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<B> {
        Stream { #[pin] body: B },
        Pieces { pieces: VecDeque<Bytes>, left: u64, trailers: Option<Box<HeaderMap>> },
    }
}

/// An empty body.
impl<B> Default for RequestBody<B> {
    fn default() -> Self {
        Self::pieces(Vec::new())
    }
}

impl<B> RequestBody<B> {
    /// The client's body as it comes.
    pub(crate) fn stream(body: B) -> Self {
        Self { kind: Kind::Stream { body } }
    }

    /// A body of these pieces, one after the other.
    pub(crate) fn pieces(mut pieces: Vec<Bytes>) -> Self {
        pieces.retain(|piece| !piece.is_empty());
        Self::with_trailers(pieces.into(), None)
    }

    /// The client's body, collected and otherwise as it came.
    pub(crate) fn untouched(collected: Collected) -> Self {
        let pieces = Some(collected.body).filter(|body| !body.is_empty());
        Self::with_trailers(pieces.into_iter().collect(), collected.trailers)
    }

    fn with_trailers(pieces: VecDeque<Bytes>, trailers: Option<Box<HeaderMap>>) -> Self {
        let left = pieces.iter().map(|piece| piece.len() as u64).sum();
        Self { kind: Kind::Pieces { pieces, left, trailers } }
    }
}

/// Pieces below this number of bytes are joined with those beside them.
const SMALL: usize = 4 * 1024;
/// The most that is joined to one frame.
const JOINED: usize = 64 * 1024;

impl<B: Body<Data = Bytes>> Body for RequestBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().kind.project() {
            KindProj::Stream { body } => body.poll_frame(cx),
            KindProj::Pieces { pieces, left, trailers } => Poll::Ready(match next_frame(pieces) {
                Some(piece) => {
                    *left -= piece.len() as u64;
                    Some(Ok(Frame::data(piece)))
                }
                None => trailers.take().map(|trailers| Ok(Frame::trailers(*trailers))),
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Stream { body } => body.is_end_stream(),
            Kind::Pieces { pieces, trailers, .. } => pieces.is_empty() && trailers.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Stream { body } => body.size_hint(),
            Kind::Pieces { left, .. } => SizeHint::with_exact(*left),
        }
    }
}

impl<B> fmt::Debug for RequestBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody").finish_non_exhaustive()
    }
}

/// A large piece as it is, or a run of small ones joined: hyper writes at most 16 frames a system call, which
/// costs more than the copy when a history is hundreds of short turns and the commas between them.
fn next_frame(pieces: &mut VecDeque<Bytes>) -> Option<Bytes> {
    let (mut run, mut length) = (0, 0);
    for piece in pieces.iter() {
        if piece.len() >= SMALL || length + piece.len() > JOINED {
            break;
        }
        run += 1;
        length += piece.len();
    }
    if run < 2 {
        return pieces.pop_front();
    }
    let mut frame = BytesMut::with_capacity(length);
    pieces.drain(..run).for_each(|piece| frame.extend_from_slice(&piece));
    Some(frame.freeze())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use http_body_util::{BodyExt, Empty};

    use super::*;

    fn frames(pieces: &[Bytes]) -> Vec<Bytes> {
        let mut body = RequestBody::<Empty<Bytes>>::pieces(pieces.to_vec());
        let mut frames = Vec::new();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        while !body.is_end_stream() {
            let before = body.size_hint().exact().unwrap();
            let frame = runtime.block_on(body.frame()).unwrap().unwrap().into_data().unwrap();
            assert_eq!(body.size_hint().exact(), Some(before - frame.len() as u64), "the length is wrong");
            frames.push(frame);
        }
        assert_eq!(frames.concat(), pieces.concat(), "the body is not what its pieces are");
        frames
    }

    fn piece(length: usize) -> Bytes {
        (0..length).map(|at| at as u8).collect()
    }

    #[test]
    fn a_history_of_short_turns_is_few_frames() {
        let frames = frames(&vec![piece(464); 500]);
        assert_eq!(frames.len(), 4, "232,000 bytes");
        assert!(frames.iter().all(|frame| frame.len() <= JOINED), "a frame is too large");
    }

    #[test]
    fn large_pieces_are_not_copied_and_stay_in_their_place() {
        let large = piece(SMALL);
        let frames = frames(&[piece(1), large.clone(), piece(2), piece(3), large.clone(), large.clone()]);
        let lengths: Vec<usize> = frames.iter().map(Bytes::len).collect();
        assert_eq!(lengths, [1, SMALL, 5, SMALL, SMALL]);
        assert_eq!(frames[4].as_ptr(), large.as_ptr(), "a large piece was copied");
    }

    #[test]
    fn no_piece_is_lost_where_a_frame_is_full() {
        for more in 0..3 {
            let mut pieces = vec![piece(SMALL - 1); JOINED / (SMALL - 1)];
            pieces.extend(vec![piece(JOINED % (SMALL - 1)), piece(0), piece(more)]);
            frames(&pieces);
        }
    }
}
