//! What a response says of its session: the header `session-memory`, an RFC 9651 item with parameters.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    history::{ClientCase, Format, Parent},
    session::push_decimal,
    view::Recipe,
};

/// Ours in both directions: what a request asks for, and what a response says.
pub(crate) const SESSION_MEMORY: HeaderName = HeaderName::from_static("session-memory");

/// What was decided of a request that names a session: the response header `session-memory`, as a value.
///
/// In the extensions of the forwarded request and of the response, beside the
/// [`SessionKey`](crate::session::SessionKey), so that an inner service, an outer layer and logs read the same.
///
/// ```text
/// session-memory: hit; client=delta; turns=12; messages=25; sent=25; store=redis
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decision {
    /// The upstream is given the session's history, or the session is new.
    Remembered(Remembered),
    /// Forwarded without memory, as asked or because the request is not ours to edit.
    Bypass {
        /// One token: `off`, `content_type`, `not_json`, …
        reason: &'static str,
    },
    /// Forwarded without memory, because the store failed.
    Degraded {
        /// One token: `load_failed`.
        reason: &'static str,
    },
}

/// How a request continues its session.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Remembered {
    /// How the client's items relate to the history.
    pub client: ClientCase,
    /// Format of the request.
    pub format: Format,
    /// Place that the turn will continue.
    pub parent: Parent,
    /// The reply that the request's body continues, where the format has a member for it.
    pub response: Option<String>,
    /// Turns on the path that the request continues.
    pub turns: usize,
    /// Items of the conversation with this request, instructions not counted.
    pub items: usize,
    /// How many of them the upstream is sent.
    pub sent: usize,
    /// How the view came about.
    pub view: Recipe,
    /// Name of the store.
    pub store: &'static str,
    /// Whether the history is known to be whole: no turn of the session was still on its way into the store.
    pub settled: bool,
    /// Why the reply is not recorded, if the response's head already tells; always `None` in a request.
    pub unrecorded: Option<&'static str>,
}

impl Decision {
    pub(crate) fn bypass(reason: &'static str) -> Self {
        Self::Bypass { reason }
    }

    pub(crate) fn degraded(reason: &'static str) -> Self {
        Self::Degraded { reason }
    }

    /// Notes why the reply is not recorded.
    pub(crate) fn is_not_recorded(&mut self, reason: &'static str) {
        if let Self::Remembered(remembered) = self {
            remembered.unrecorded = Some(reason);
        }
    }

    /// The word that the header begins with: `hit`, `new`, `bypass` or `degraded`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Remembered(Remembered { settled: false, .. }) => "degraded",
            Self::Remembered(Remembered { turns: 0, .. }) => "new",
            Self::Remembered(_) => "hit",
            Self::Bypass { .. } => "bypass",
            Self::Degraded { .. } => "degraded",
        }
    }

    /// Why a request was forwarded without memory; empty for one with it.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Remembered(_) => "",
            Self::Bypass { reason } | Self::Degraded { reason } => reason,
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
            Self::Remembered(Remembered {
                client, turns, items, sent, store, settled, unrecorded, ..
            }) => {
                if !settled {
                    add(&mut text, "reason", "pending");
                }
                add(&mut text, "client", client.as_str());
                for (name, count) in [("turns", turns), ("messages", items), ("sent", sent)] {
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
            client: ClientCase::Delta,
            format: Format::from_static("test.toy"),
            parent: Parent::Previous,
            response: None,
            turns: 12,
            items: 24,
            sent: 25,
            view: Recipe::default(),
            store: "sqlite",
            settled: true,
            unrecorded: None,
        };
        assert_eq!(
            Decision::Remembered(remembered.clone()).text(),
            "hit; client=delta; turns=12; messages=24; sent=25; store=sqlite"
        );
        let first = Remembered {
            client: ClientCase::New,
            turns: 0,
            items: 0,
            sent: 1,
            unrecorded: Some("status"),
            ..remembered.clone()
        };
        assert_eq!(
            Decision::Remembered(first).text(),
            "new; client=new; turns=0; messages=0; sent=1; store=sqlite; unrecorded=status"
        );
        let pending = Remembered { settled: false, ..remembered };
        assert_eq!(
            Decision::Remembered(pending).text(),
            "degraded; reason=pending; client=delta; turns=12; messages=24; sent=25; store=sqlite"
        );
        assert_eq!(Decision::degraded("load_failed").text(), "degraded; reason=load_failed");
    }
}
