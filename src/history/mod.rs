//! Messages, turns, the log, and what is sent of it.
//!
//! A session is an append-only log of [`Turn`]s. Each names its parent; the history is the path from the
//! root to the newest turn. Nothing here knows HTTP or stores.

mod compare;
mod joined;
mod log;
mod message;
mod plan;
mod reconcile;
mod turn;
mod window;

pub use log::{Log, Path};
pub use message::{About, Canonical, Message, Role};
pub use plan::{ClientCase, Instructions, Mode, Plan};
pub use reconcile::{Incoming, reconcile};
pub use turn::{Envelope, Parent, RecordError, Turn, TurnId, TurnParts, TurnState};
pub use window::Window;

#[cfg(test)]
mod fixtures;
