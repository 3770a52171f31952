use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Visitor};

/// One element of a conversation: the raw JSON bytes as they were sent, with their meaning read out by the format.
///
/// The bytes are never re-serialised. `Debug` shows no content.
#[derive(Clone, PartialEq, Eq)]
pub struct Item {
    raw: Bytes,
    about: About,
}

/// Meaning of an item, independent of its format.
///
/// Stored in the record's header, so that a stored history is compared, windowed and repaired without being parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct About {
    /// Author of the item.
    pub author: Author,
    /// Whether the item opens an exchange: the places at which a window may cut. Default: true for
    /// [`Author::User`], false for others.
    pub opens: bool,
    /// Ids of the calls that the item makes, in order. A call without an id counts as `""`.
    pub calls: Vec<String>,
    /// Ids of the calls that the item answers. A result without an id counts as `""`.
    pub answers: Vec<String>,
}

/// Author of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Author {
    /// The operator: instructions.
    Instruction,
    /// The person or program that asks.
    User,
    /// The model.
    Model,
    /// A tool: the result of a call.
    Tool,
    /// An author that the format names and this version does not know. Kept, and part of the conversation.
    Other,
}

/// Digest of an item's meaning, equal for two items that say the same although they were serialised
/// differently; see [`Protocol::canonical`](crate::protocol::Protocol::canonical).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Canonical(pub [u8; 16]);

impl Author {
    /// Name in records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Instruction => "instruction",
            Self::User => "user",
            Self::Model => "model",
            Self::Tool => "tool",
            Self::Other => "other",
        }
    }
}

impl From<&str> for Author {
    fn from(name: &str) -> Self {
        match name {
            "instruction" => Self::Instruction,
            "user" => Self::User,
            "model" => Self::Model,
            "tool" => Self::Tool,
            _ => Self::Other,
        }
    }
}

impl Serialize for Author {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Author {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;

        impl Visitor<'_> for Name {
            type Value = Author;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an author")
            }

            fn visit_str<E>(self, name: &str) -> Result<Author, E> {
                Ok(name.into())
            }
        }

        deserializer.deserialize_str(Name)
    }
}

impl About {
    /// An item of this author that neither makes nor answers a call.
    #[must_use]
    pub fn new(author: Author) -> Self {
        Self { author, opens: Self::opens_by_default(author), calls: Vec::new(), answers: Vec::new() }
    }

    /// Sets [`opens`](Self::opens).
    #[must_use]
    pub fn with_opens(mut self, opens: bool) -> Self {
        self.opens = opens;
        self
    }

    /// Sets [`calls`](Self::calls).
    #[must_use]
    pub fn with_calls<S: Into<String>>(mut self, ids: impl IntoIterator<Item = S>) -> Self {
        self.calls = ids.into_iter().map(Into::into).collect();
        self
    }

    /// Sets [`answers`](Self::answers).
    #[must_use]
    pub fn with_answers<S: Into<String>>(mut self, ids: impl IntoIterator<Item = S>) -> Self {
        self.answers = ids.into_iter().map(Into::into).collect();
        self
    }

    pub(super) fn opens_by_default(author: Author) -> bool {
        author == Author::User
    }
}

impl Item {
    /// Joins raw bytes with the meaning that a format has read out of them.
    #[must_use]
    pub fn new(raw: Bytes, about: About) -> Self {
        Self { raw, about }
    }

    /// The JSON as it was sent.
    #[must_use]
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// Meaning of the item.
    #[must_use]
    pub fn about(&self) -> &About {
        &self.about
    }

    /// Meaning of the item, without the bytes.
    pub(crate) fn into_about(self) -> About {
        self.about
    }

    /// Author of the item.
    #[must_use]
    pub fn author(&self) -> Author {
        self.about.author
    }
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Item")
            .field("author", &self.about.author)
            .field("bytes", &self.raw.len())
            .finish_non_exhaustive()
    }
}
