//! The layer's own failures: responses in the shape that OpenAI clients understand.

use std::{borrow::Cow, time::Duration};

use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use crate::{body::ResponseBody, session::InvalidSessionId};

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
            "compressed request bodies are not supported; send content-encoding identity"
        };
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", message)
    }

    pub(crate) fn store_unavailable() -> Self {
        let message = "the session's history could not be loaded; nothing was sent to the model. Try again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "session_store_unavailable", message)
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

    pub(crate) fn into_response<B>(self) -> Response<ResponseBody<B>> {
        #[derive(Serialize)]
        struct Shape<'a> {
            error: Inner<'a>,
        }
        #[derive(Serialize)]
        struct Inner<'a> {
            message: &'a str,
            r#type: &'static str,
            param: Option<&'a str>,
            code: &'static str,
        }
        let r#type = if self.status.is_server_error() { "server_error" } else { "invalid_request_error" };
        let error = Inner { message: &self.message, r#type, param: self.param.as_deref(), code: self.code };
        let body = serde_json::to_vec(&Shape { error }).unwrap_or_default();
        let mut response = Response::new(ResponseBody::own(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }

    fn new(status: StatusCode, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, message: message.into(), param: None }
    }
}
