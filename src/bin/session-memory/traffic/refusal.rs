//! Responses of the proxy itself, in the error shape of OpenAI's API.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

/// A response that the proxy gives in place of the upstream.
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// `invalid_request_error` for the client's fault, `upstream_error` for the upstream's, `server_error` for ours.
    pub(crate) kind: &'static str,
    /// Stable, for programs.
    pub(crate) code: &'static str,
    /// For people; names the setting that moves a limit.
    pub(crate) message: String,
    /// Whether the connection must end, since nothing that follows on it can be trusted.
    pub(crate) close: bool,
}

impl Refusal {
    /// The client's fault, after which its connection ends.
    pub(crate) fn invalid(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            kind: "invalid_request_error",
            code: "invalid_request",
            message: message.into(),
            close: true,
        }
    }

    /// The upstream's fault.
    pub(crate) fn upstream(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind: "upstream_error", code, message: message.into(), close: false }
    }

    /// Too many requests at once; the client may try again.
    pub(crate) fn overloaded(message: impl Into<String>) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self { status, kind: "server_error", code: "overloaded", message: message.into(), close: false }
    }

    pub(crate) fn into_response(self) -> Response<Full<Bytes>> {
        let body = serde_json::json!({
            "error": { "message": self.message, "type": self.kind, "param": null, "code": self.code }
        });
        let mut response = json(self.status, &body);
        if self.close {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            let allowed = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
            response.headers_mut().insert(header::ALLOW, allowed);
        }
        response
    }
}

/// A response with a JSON body.
pub(crate) fn json(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
