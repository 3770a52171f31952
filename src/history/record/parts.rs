//! What a turn is made of.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{id::RecordId, place::Parent};
use crate::history::{ClientCase, Format, Item};

/// What a turn is made of; see [`TurnParts::into_record`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TurnParts {
    /// Id of the turn.
    pub id: RecordId,
    /// Place that it continues.
    pub parent: Parent,
    /// When it was made; informative, orders nothing.
    pub at: SystemTime,
    /// Format of its items.
    pub format: Format,
    /// The client's instructions, if they differ from those of the path; else empty.
    pub instructions: Vec<Item>,
    /// The client's new items.
    pub sent: Vec<Item>,
    /// Items of the reply.
    pub reply: Vec<Item>,
    /// Whole, or cut by the client's leaving.
    pub state: TurnState,
    /// How the client's items continued the session.
    pub client: Option<ClientCase>,
    /// What the provider gave as the reason for ending.
    pub finish_reason: Option<String>,
    /// The model that the reply names.
    pub model: Option<String>,
    /// The reply's `usage` member, as raw JSON.
    pub usage: Option<Box<RawValue>>,
    /// The id that the upstream gave the reply.
    pub response_id: Option<String>,
    /// Number of the client's attempt, from 0, where its SDK counts them.
    pub attempt: Option<u32>,
    /// Digest of the request's idempotency key.
    pub idempotency_key: Option<String>,
    /// What the upstream was shown of the path, as raw JSON; see [`Recipe`](crate::Recipe).
    pub view: Option<Box<RawValue>>,
    /// A title of the conversation.
    pub title: Option<String>,
}

impl TurnParts {
    /// A complete turn of now that continues the one before it.
    #[must_use]
    pub fn new(format: Format, sent: Vec<Item>, reply: Vec<Item>) -> Self {
        Self {
            id: RecordId::new(),
            parent: Parent::Previous,
            at: SystemTime::now(),
            format,
            instructions: Vec::new(),
            sent,
            reply,
            state: TurnState::Complete,
            client: None,
            finish_reason: None,
            model: None,
            usage: None,
            response_id: None,
            attempt: None,
            idempotency_key: None,
            view: None,
            title: None,
        }
    }
}

/// How much of the reply a turn holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum TurnState {
    /// The reply ended by itself.
    Complete,
    /// The client left first; the reply is what it was sent.
    Interrupted,
}

impl TurnState {
    /// Name in records.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Interrupted => "interrupted",
        }
    }
}
