//! The shape of OpenAI's error bodies.

use bytes::Bytes;
use serde::Serialize;

use crate::protocol::ErrorBody;

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

pub(super) fn body(error: &ErrorBody<'_>) -> Bytes {
    let r#type = if error.status.is_server_error() { "server_error" } else { "invalid_request_error" };
    let error = Inner { message: error.message, r#type, param: error.param, code: error.code };
    serde_json::to_vec(&Shape { error }).unwrap_or_default().into()
}
