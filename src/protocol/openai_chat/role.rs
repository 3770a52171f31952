//! The roles of messages, and what they mean.

use crate::history::{About, Author};

/// The role of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    System,
    Developer,
    User,
    Assistant,
    Tool,
    /// The result of a function call (deprecated).
    Function,
    /// Any other: kept as it is.
    Other,
}

impl From<&str> for Role {
    fn from(role: &str) -> Self {
        match role {
            "system" => Self::System,
            "developer" => Self::Developer,
            "user" => Self::User,
            "assistant" => Self::Assistant,
            "tool" => Self::Tool,
            "function" => Self::Function,
            _ => Self::Other,
        }
    }
}

impl Role {
    /// Meaning of a message of this role that neither makes nor answers calls.
    pub(super) fn about(self) -> About {
        About::new(match self {
            Self::System | Self::Developer => Author::Instruction,
            Self::User => Author::User,
            Self::Assistant => Author::Model,
            Self::Tool | Self::Function => Author::Tool,
            Self::Other => Author::Other,
        })
    }
}
