use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
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
        Pieces { pieces: VecDeque<Bytes>, left: u64, trailers: Option<HeaderMap> },
    }
}

impl<B> RequestBody<B> {
    /// The client's body as it comes.
    pub(crate) fn stream(body: B) -> Self {
        Self { kind: Kind::Stream { body } }
    }

    /// A body of these pieces, sent one after the other and never joined.
    pub(crate) fn pieces(pieces: impl IntoIterator<Item = Bytes>) -> Self {
        Self::with_trailers(pieces.into_iter().filter(|piece| !piece.is_empty()).collect(), None)
    }

    /// The client's body, collected and otherwise as it came.
    pub(crate) fn untouched(collected: Collected) -> Self {
        let pieces = Some(collected.body).filter(|body| !body.is_empty());
        Self::with_trailers(pieces.into_iter().collect(), collected.trailers)
    }

    fn with_trailers(pieces: VecDeque<Bytes>, trailers: Option<HeaderMap>) -> Self {
        let left = pieces.iter().map(|piece| piece.len() as u64).sum();
        Self { kind: Kind::Pieces { pieces, left, trailers } }
    }
}

impl<B: Body<Data = Bytes>> Body for RequestBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().kind.project() {
            KindProj::Stream { body } => body.poll_frame(cx),
            KindProj::Pieces { pieces, left, trailers } => Poll::Ready(match pieces.pop_front() {
                Some(piece) => {
                    *left -= piece.len() as u64;
                    Some(Ok(Frame::data(piece)))
                }
                None => trailers.take().map(|trailers| Ok(Frame::trailers(trailers))),
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
