//! Messages, turns, the log, and what is sent of it.
//!
//! A session is an append-only log of [`Turn`]s. Each names its parent; the history is the path from the
//! root to the newest turn. Nothing here knows HTTP or stores.

mod message;
mod turn;

pub use message::{About, Message, Role};
pub use turn::{Parent, RecordError, Turn, TurnId, TurnParts, TurnState};
