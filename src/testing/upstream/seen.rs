use bytes::Bytes;
use http::{HeaderMap, Method, Uri};

/// One request, as it came.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Seen {
    /// The method.
    pub method: Method,
    /// The path with its query.
    pub uri: Uri,
    /// The headers.
    pub headers: HeaderMap,
    /// The body without its transfer coding.
    pub body: Bytes,
    /// Which connection it came on, counted from 0.
    pub connection: usize,
}

impl Seen {
    /// The first value of a header, if it is visible ASCII.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as JSON; `Null` when it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The `messages` of the body; empty when there are none.
    #[must_use]
    pub fn messages(&self) -> Vec<serde_json::Value> {
        match self.json().get_mut("messages").map(serde_json::Value::take) {
            Some(serde_json::Value::Array(messages)) => messages,
            _ => Vec::new(),
        }
    }
}
