use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use pin_project_lite::pin_project;

use super::{BoxError, Tee};

pin_project! {
    /// The response body of [`SessionMemory`](crate::SessionMemory): the upstream's bytes, unchanged.
    ///
    /// The end of a recorded reply is held until its turn is stored. If the reply must be cut
    /// ([`OnAppendError::Cut`](crate::OnAppendError::Cut)), the body ends in an error.
    pub struct ResponseBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<B> {
        Inner { #[pin] body: B },
        /// Boxed: bodies are moved a good deal on their way, and most are not recorded.
        Recorded { tee: Box<Tee<B>> },
        Own { #[pin] body: Full<Bytes> },
    }
}

impl<B> ResponseBody<B> {
    pub(crate) fn inner(body: B) -> Self {
        Self { kind: Kind::Inner { body } }
    }

    pub(crate) fn recorded(tee: Tee<B>) -> Self {
        Self { kind: Kind::Recorded { tee: Box::new(tee) } }
    }

    pub(crate) fn own(body: impl Into<Bytes>) -> Self {
        Self { kind: Kind::Own { body: Full::new(body.into()) } }
    }
}

/// An empty body: what layers such as tower-http's `TimeoutLayer` and `CorsLayer` answer with.
impl<B> Default for ResponseBody<B> {
    fn default() -> Self {
        Self::own(Bytes::new())
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project().kind.project() {
            KindProj::Inner { body } => body.poll_frame(cx).map_err(Into::into),
            KindProj::Recorded { tee } => tee.poll_frame(cx),
            KindProj::Own { body } => body.poll_frame(cx).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Inner { body } => body.is_end_stream(),
            Kind::Recorded { tee } => tee.is_end_stream(),
            Kind::Own { body } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Inner { body } => body.size_hint(),
            Kind::Recorded { tee } => tee.size_hint(),
            Kind::Own { body } => body.size_hint(),
        }
    }
}

impl<B> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}
