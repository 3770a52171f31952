use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Visitor};

/// One chat message: the raw JSON bytes as they were sent, with what the history must know of it read out.
///
/// The bytes are never re-serialised. `Debug` shows no content.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    raw: Bytes,
    about: About,
}

/// What is known of a message without reading its bytes. It stands in the record's header, so that a stored
/// history is windowed and healed without being parsed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Who speaks.
    pub role: Role,
    /// Ids of the tool calls that an assistant message makes, in order. A call without an id counts as `""`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<String>,
    /// The tool call that a tool message answers. A deprecated `function` message answers `""`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<String>,
}

/// The role of a message. Roles that we do not know are kept as they are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// Operator instructions.
    System,
    /// Operator instructions, the name that newer models use.
    Developer,
    /// The person or program that asks.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
    /// The result of a function call (deprecated).
    Function,
    /// Any other.
    Other(String),
}

/// A digest of what a message says, equal for two messages that say the same although they were serialised
/// differently; see [`Protocol::canonical`](crate::protocol::Protocol::canonical).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Canonical(pub [u8; 16]);

impl From<&str> for Role {
    fn from(role: &str) -> Self {
        match role {
            "system" => Self::System,
            "developer" => Self::Developer,
            "user" => Self::User,
            "assistant" => Self::Assistant,
            "tool" => Self::Tool,
            "function" => Self::Function,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl Role {
    /// The role as messages name it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::System => "system",
            Self::Developer => "developer",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
            Self::Function => "function",
            Self::Other(role) => role,
        }
    }
}

impl Serialize for Role {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Role {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;

        impl Visitor<'_> for Name {
            type Value = Role;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a role")
            }

            fn visit_str<E>(self, role: &str) -> Result<Role, E> {
                Ok(role.into())
            }
        }

        deserializer.deserialize_str(Name)
    }
}

impl About {
    /// A message of this role that neither calls a tool nor answers a call.
    #[must_use]
    pub fn new(role: Role) -> Self {
        Self { role, calls: Vec::new(), answers: None }
    }
}

impl Message {
    /// Joins raw bytes and what a protocol has read out of them.
    #[must_use]
    pub fn new(raw: Bytes, about: About) -> Self {
        Self { raw, about }
    }

    /// The JSON object as it was sent.
    #[must_use]
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// What was read out of it.
    #[must_use]
    pub fn about(&self) -> &About {
        &self.about
    }

    /// What was read out of it, without the bytes.
    pub(crate) fn into_about(self) -> About {
        self.about
    }

    /// Who speaks.
    #[must_use]
    pub fn role(&self) -> &Role {
        &self.about.role
    }

    /// Whether it is a `system` or `developer` message.
    #[must_use]
    pub fn is_instruction(&self) -> bool {
        matches!(self.about.role, Role::System | Role::Developer)
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("role", &self.about.role)
            .field("bytes", &self.raw.len())
            .finish_non_exhaustive()
    }
}
