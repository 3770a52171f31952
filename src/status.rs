//! What a response says of its session: the header `session-memory`, an RFC 9651 item with parameters.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::session::push_decimal;

/// Ours in both directions: what a request asks for, and what a response says.
pub(crate) const SESSION_MEMORY: HeaderName = HeaderName::from_static("session-memory");

/// ```text
/// session-memory: hit; client=delta; turns=12; messages=25; sent=25; store=redis
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// The upstream was given the session's history, or the session is new.
    Remembered(Remembered),
    /// Forwarded without memory, as asked or because the request is not ours to edit.
    Bypass { reason: &'static str },
    /// Forwarded without memory, because the store failed.
    Degraded { reason: &'static str },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Remembered {
    /// How the request relates to the history.
    pub(crate) client: &'static str,
    /// Turns on the path that the request continues.
    pub(crate) turns: usize,
    /// Messages of the conversation with this request, instructions not counted.
    pub(crate) messages: usize,
    /// How many of them the upstream was sent.
    pub(crate) sent: usize,
    pub(crate) store: &'static str,
    /// Whether the history is known to be whole: no turn of the session was still on its way into the store.
    pub(crate) settled: bool,
    /// Why the reply is not recorded, if the response's head already tells.
    pub(crate) unrecorded: Option<&'static str>,
}

impl Status {
    pub(crate) fn bypass(reason: &'static str) -> Self {
        Self::Bypass { reason }
    }

    pub(crate) fn degraded(reason: &'static str) -> Self {
        Self::Degraded { reason }
    }

    /// The word that the header begins with.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Remembered(Remembered { settled: false, .. }) => "degraded",
            Self::Remembered(Remembered { turns: 0, .. }) => "new",
            Self::Remembered(_) => "hit",
            Self::Bypass { .. } => "bypass",
            Self::Degraded { .. } => "degraded",
        }
    }

    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::try_from(self.text()) {
            headers.insert(SESSION_MEMORY, value);
        }
    }

    fn text(&self) -> String {
        let mut text = String::with_capacity(128);
        text.push_str(self.word());
        match self {
            Self::Bypass { reason } | Self::Degraded { reason } => add(&mut text, "reason", reason),
            Self::Remembered(Remembered { client, turns, messages, sent, store, settled, unrecorded }) => {
                if !settled {
                    add(&mut text, "reason", "pending");
                }
                add(&mut text, "client", client);
                for (name, count) in [("turns", turns), ("messages", messages), ("sent", sent)] {
                    add(&mut text, name, "");
                    push_decimal(&mut text, *count);
                }
                add(&mut text, "store", store);
                unrecorded.iter().for_each(|reason| add(&mut text, "unrecorded", reason));
            }
        }
        text
    }
}

fn add(text: &mut String, name: &str, value: &str) {
    for part in ["; ", name, "=", value] {
        text.push_str(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_what_the_documentation_shows() {
        let remembered = Remembered {
            client: "delta",
            turns: 12,
            messages: 24,
            sent: 25,
            store: "sqlite",
            settled: true,
            unrecorded: None,
        };
        assert_eq!(
            Status::Remembered(remembered).text(),
            "hit; client=delta; turns=12; messages=24; sent=25; store=sqlite"
        );
        let first = Remembered {
            client: "new",
            turns: 0,
            messages: 0,
            sent: 1,
            unrecorded: Some("status"),
            ..remembered
        };
        assert_eq!(
            Status::Remembered(first).text(),
            "new; client=new; turns=0; messages=0; sent=1; store=sqlite; unrecorded=status"
        );
        let pending = Remembered { settled: false, ..remembered };
        assert_eq!(
            Status::Remembered(pending).text(),
            "degraded; reason=pending; client=delta; turns=12; messages=24; sent=25; store=sqlite"
        );
        assert_eq!(Status::degraded("load_failed").text(), "degraded; reason=load_failed");
    }
}
