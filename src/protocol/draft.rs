use std::fmt;

use bytes::Bytes;

use crate::history::Item;

/// A request body with its items found. `Debug` shows no content.
#[derive(Clone)]
#[non_exhaustive]
pub struct Draft {
    /// The body as the client sent it (decoded, if it came compressed).
    pub body: Bytes,
    /// The client's instructions; each is a slice of `body`.
    pub instructions: Vec<Item>,
    /// Its items after the instructions, in order; each is a slice of `body`.
    pub items: Vec<Item>,
    /// The session that the body names, where the format has a member for it. The head counts first.
    pub session: Option<String>,
    /// The id of the reply that the body continues, where the format has a member for it.
    pub response: Option<String>,
    /// An offset into `body` that means something to the format alone: where it inserts.
    pub insert_at: usize,
}

impl Draft {
    /// A body with these items, edited at this offset.
    #[must_use]
    pub fn new(body: Bytes, instructions: Vec<Item>, items: Vec<Item>, insert_at: usize) -> Self {
        Self { body, instructions, items, session: None, response: None, insert_at }
    }

    /// Sets [`session`](Self::session).
    #[must_use]
    pub fn with_session(mut self, session: Option<String>) -> Self {
        self.session = session;
        self
    }

    /// Sets [`response`](Self::response).
    #[must_use]
    pub fn with_response(mut self, response: Option<String>) -> Self {
        self.response = response;
        self
    }
}

impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draft")
            .field("bytes", &self.body.len())
            .field("instructions", &self.instructions.len())
            .field("items", &self.items.len())
            .field("insert_at", &self.insert_at)
            .finish_non_exhaustive()
    }
}

/// What is to be inserted into a request. Each group is raw items joined by single commas; groups may be empty.
#[derive(Clone, Copy, Default)]
#[non_exhaustive]
pub struct Insertion<'a> {
    /// Remembered instructions, for a request that brings none.
    pub instructions: Option<&'a Bytes>,
    /// What stands between the instructions and the history.
    pub lead: &'a [Bytes],
    /// The stored items that stand before the client's own.
    pub history: &'a [Bytes],
}

impl<'a> Insertion<'a> {
    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.groups().map(Bytes::len).sum()
    }

    /// Whether nothing is inserted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups().next().is_none()
    }

    /// Its groups in the order in which they are sent, without the empty ones.
    pub fn groups(&self) -> impl Iterator<Item = &'a Bytes> + use<'a> {
        let groups = self.instructions.into_iter().chain(self.lead).chain(self.history);
        groups.filter(|group| !group.is_empty())
    }
}

impl fmt::Debug for Insertion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Insertion").field("bytes", &self.len()).finish_non_exhaustive()
    }
}

/// Reason why a body is not edited: the token after `reason=` in the response header, and the metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body is not edited: {0}")]
pub struct Uneditable(&'static str);

impl Uneditable {
    /// A reason of a format, as one lower-case token: `not_json`.
    #[must_use]
    pub const fn new(token: &'static str) -> Self {
        Self(token)
    }

    /// The token.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.0
    }
}
