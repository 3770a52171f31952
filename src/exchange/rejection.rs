//! The layer's own failures: responses in the shape that the request's format has for errors.

use std::{borrow::Cow, time::Duration};

use http::{HeaderValue, Response, StatusCode, header};

use crate::{
    body::ResponseBody,
    history::Format,
    protocol::{ErrorBody, Protocol},
    session::InvalidSessionId,
};

/// A request that the layer answers itself.
#[derive(Debug, Clone)]
pub(crate) struct Rejection {
    status: StatusCode,
    code: &'static str,
    message: Cow<'static, str>,
    param: Option<Cow<'static, str>>,
}

impl Rejection {
    pub(crate) fn invalid_session_id(cause: InvalidSessionId) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_session_id", cause.to_string())
    }

    pub(crate) fn missing_session_id() -> Self {
        let message = "the request names no session; by default its id is read from the header x-session-id";
        Self::new(StatusCode::BAD_REQUEST, "missing_session_id", message)
    }

    pub(crate) fn invalid_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", message)
    }

    pub(crate) fn too_slow(limit: Duration) -> Self {
        let message =
            format!("the request body paused for more than {limit:?}, the limit set by body_read_timeout");
        Self::new(StatusCode::REQUEST_TIMEOUT, "invalid_request", message)
    }

    pub(crate) fn too_late(limit: Duration) -> Self {
        let message =
            format!("the request body did not come whole within {limit:?}, the limit set by body_deadline");
        Self::new(StatusCode::REQUEST_TIMEOUT, "invalid_request", message)
    }

    /// `what` has more than `limit` bytes; `setting` moves the limit.
    pub(crate) fn too_large(what: &str, limit: usize, setting: &'static str) -> Self {
        let message = format!("{what} is larger than {limit} bytes, the limit set by {setting}");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message)
    }

    pub(crate) fn bomb() -> Self {
        let message =
            "the request body grows suspiciously when it is decoded: to over 1 MiB and 200 times its size";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message)
    }

    pub(crate) fn unsupported_encoding() -> Self {
        let message = if cfg!(feature = "compression") {
            "content-encoding is not supported; send gzip, deflate, br, zstd or identity"
        } else {
            "compressed request bodies need the feature `compression` of tower-session-memory; send content-encoding \
             identity"
        };
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", message)
    }

    pub(crate) fn store_unavailable() -> Self {
        let message = "the session's history could not be loaded; nothing was sent to the model. Try again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "session_store_unavailable", message)
    }

    /// The conversation holds turns in a format that no protocol of the layer speaks.
    pub(crate) fn unreadable_session(format: Format) -> Self {
        let message = format!(
            "the session's conversation is in the format {format}, which this program does not speak; nothing was \
             sent to the model. Upgrade the program, or send session-memory: reset to start the conversation again"
        );
        Self::new(StatusCode::CONFLICT, "unreadable_session", message)
    }

    /// The bodies of other requests take all the room there is.
    pub(crate) fn overloaded(limit: usize) -> Self {
        let message =
            format!("the requests at hand take {limit} bytes, the limit set by max_buffered. Try again");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", message)
    }

    pub(crate) fn with_param(mut self, param: impl Into<Cow<'static, str>>) -> Self {
        self.param = Some(param.into());
        self
    }

    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    /// The response, in the shape of this format.
    pub(crate) fn into_response<B>(self, protocol: &dyn Protocol) -> Response<ResponseBody<B>> {
        let Self { status, code, message, param } = self;
        let body =
            protocol.error_body(&ErrorBody { status, code, message: &message, param: param.as_deref() });
        let mut response = Response::new(ResponseBody::own(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }

    fn new(status: StatusCode, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, message: message.into(), param: None }
    }
}
