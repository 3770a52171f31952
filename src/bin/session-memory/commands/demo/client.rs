//! A client that sends only its newest message.

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy, rt::TokioExecutor};
use serde_json::{Value, json};
use tower_session_memory::protocol::openai_chat::OpenAiChat;

use crate::error::BoxError;

/// One client of one session.
pub(super) struct DemoClient {
    url: String,
    session: String,
}

/// A reply, as the client received it.
pub(super) struct Received {
    pub(super) text: String,
    /// The header `session-memory`.
    pub(super) status: Option<String>,
}

impl DemoClient {
    pub(super) fn new(url: &str, session: &str) -> Self {
        Self { url: format!("{url}/v1{}", OpenAiChat::PATH_SUFFIX), session: session.to_owned() }
    }

    /// Sends one message, without any earlier one.
    pub(super) async fn say(&self, text: &str, stream: bool) -> Result<Received, BoxError> {
        let body = json!({
            "model": "scripted", "stream": stream, "messages": [{ "role": "user", "content": text }]
        });
        let request = Request::post(&self.url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, "Bearer demo")
            .header("x-session-id", &self.session)
            .body(Full::new(Bytes::from(body.to_string())))?;
        let response = legacy::Client::builder(TokioExecutor::new()).build_http().request(request).await?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        if !parts.status.is_success() {
            return Err(format!("{}: {}", parts.status, String::from_utf8_lossy(&body)).into());
        }
        let status = parts.headers.get("session-memory").and_then(|value| value.to_str().ok());
        let text = if stream { from_stream(&body) } else { from_whole(&body) };
        Ok(Received { text, status: status.map(str::to_owned) })
    }
}

fn from_whole(body: &[u8]) -> String {
    let reply: Value = serde_json::from_slice(body).unwrap_or_default();
    reply["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned()
}

fn from_stream(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let events = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let chunks = events.filter_map(|event| serde_json::from_str::<Value>(event).ok());
    chunks.filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned)).collect()
}
