use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, request};
use http_body::Body;
use tower_service::Service;

use crate::{
    body::{BoxError, RequestBody, ResponseBody},
    config::Config,
    exchange::{self, Decision, Exchange, in_head, unnamed},
    future::ResponseFuture,
    protocol::Route,
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

impl<S> SessionMemory<S> {
    /// Forwards what is none of our business.
    fn pass<B, R>(&mut self, parts: request::Parts, body: B) -> ResponseFuture<S::Future, R, S::Error>
    where
        S: Service<Request<RequestBody<B>>, Response = Response<R>>,
    {
        let request = Request::from_parts(parts, RequestBody::stream(body));
        ResponseFuture::passed(self.inner.call(request))
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
        // A layer outside of this one has dealt with the request.
        let routed = match parts.extensions.get::<Decision>() {
            Some(_) => None,
            None => self.config.route(&parts),
        };
        let Some((protocol, route)) = routed else { return self.pass(parts, body) };
        let identity = match in_head(&self.config, &parts) {
            Ok(None) if route != Route::ConverseByBody => unnamed(&self.config, &parts),
            found => found,
        };
        match identity {
            Ok(None) if route != Route::ConverseByBody => self.pass(parts, body),
            Ok(identity) => {
                // The instance that was polled ready is the one that must be called.
                let clone = self.inner.clone();
                let ready = mem::replace(&mut self.inner, clone);
                let exchange = Exchange { config: Arc::clone(&self.config), protocol: Arc::clone(protocol) };
                ResponseFuture::remembered(exchange::run(exchange, ready, identity, parts, body))
            }
            Err(rejection) => {
                telemetry::rejected(rejection.code());
                ResponseFuture::answered(rejection.into_response(&**protocol))
            }
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for SessionMemory<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionMemory").field("inner", &self.inner).finish_non_exhaustive()
    }
}
