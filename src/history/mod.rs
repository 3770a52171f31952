//! Messages, turns, the log, and what is sent of it.
//!
//! A session is an append-only log of [`Record`]s. Each names its parent; the history is the path from the
//! root to the newest turn. Nothing here knows HTTP or stores.

mod compare;
mod joined;
mod log;
mod message;
mod plan;
mod reconcile;
mod record;
mod window;

pub use log::{Log, Path};
pub use message::{About, Canonical, Message, Role};
pub use plan::{ClientCase, Instructions, Mode, Plan};
pub use reconcile::{Incoming, reconcile};
pub use record::{Envelope, Parent, Record, RecordError, RecordId, TurnParts, TurnState};
pub use window::Window;

#[cfg(test)]
mod fixtures;
