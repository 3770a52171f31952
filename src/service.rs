use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use crate::{
    body::{BoxError, RequestBody, ResponseBody},
    config::Config,
    exchange,
    future::ResponseFuture,
    session::identify::identify,
    telemetry,
};

/// The service that [`SessionMemoryLayer`](crate::SessionMemoryLayer) makes.
///
/// Its error is the inner service's: what the layer itself has to refuse is a response.
#[derive(Clone)]
pub struct SessionMemory<S> {
    inner: S,
    config: Arc<Config>,
}

impl<S> SessionMemory<S> {
    pub(crate) fn new(inner: S, config: Arc<Config>) -> Self {
        Self { inner, config }
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The inner service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, B, R> Service<Request<B>> for SessionMemory<S>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, R, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (parts, body) = request.into_parts();
        let identity = match self.config.protocol.matches(&parts) {
            true => identify(&self.config, &parts),
            false => Ok(None),
        };
        match identity {
            Ok(None) => {
                let request = Request::from_parts(parts, RequestBody::stream(body));
                ResponseFuture::passed(self.inner.call(request))
            }
            Ok(Some(identity)) => {
                // The instance that was polled ready is the one that must be called.
                let clone = self.inner.clone();
                let ready = mem::replace(&mut self.inner, clone);
                let config = Arc::clone(&self.config);
                ResponseFuture::remembered(exchange::run(config, ready, identity, parts, body))
            }
            Err(rejection) => {
                telemetry::rejected(rejection.code());
                ResponseFuture::answered(rejection.into_response())
            }
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for SessionMemory<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionMemory").field("inner", &self.inner).finish_non_exhaustive()
    }
}
