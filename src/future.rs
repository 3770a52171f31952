use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use pin_project_lite::pin_project;

use crate::body::ResponseBody;

type Boxed<R, E> = Pin<Box<dyn Future<Output = Result<Response<ResponseBody<R>>, E>> + Send>>;

pin_project! {
    /// The future of [`SessionMemory`](crate::SessionMemory).
    ///
    /// # Cancel safety
    ///
    /// Dropping it cancels the upstream request, and nothing is stored; with
    /// [`OnDisconnect::Drain`](crate::OnDisconnect::Drain) the exchange goes on in the background instead.
    pub struct ResponseFuture<F, R, E> {
        #[pin]
        kind: Kind<F, R, E>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<F, R, E> {
        /// Not our business: no allocation.
        Passed { #[pin] future: F },
        Remembered { future: Boxed<R, E> },
        Answered { response: Option<Response<ResponseBody<R>>> },
    }
}

impl<F, R, E> ResponseFuture<F, R, E> {
    pub(crate) fn passed(future: F) -> Self {
        Self { kind: Kind::Passed { future } }
    }

    pub(crate) fn remembered<X>(exchange: X) -> Self
    where
        X: Future<Output = Result<Response<ResponseBody<R>>, E>> + Send + 'static,
    {
        Self { kind: Kind::Remembered { future: Box::pin(exchange) } }
    }

    pub(crate) fn answered(response: Response<ResponseBody<R>>) -> Self {
        Self { kind: Kind::Answered { response: Some(response) } }
    }
}

impl<F, R, E> Future for ResponseFuture<F, R, E>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<ResponseBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().kind.project() {
            KindProj::Passed { future } => {
                let response = ready!(future.poll(cx))?;
                Poll::Ready(Ok(response.map(ResponseBody::inner)))
            }
            KindProj::Remembered { future } => future.as_mut().poll(cx),
            KindProj::Answered { response } => match response.take() {
                Some(response) => Poll::Ready(Ok(response)),
                // Polled after it was ready, which no executor does.
                None => Poll::Pending,
            },
        }
    }
}

impl<F, R, E> fmt::Debug for ResponseFuture<F, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
