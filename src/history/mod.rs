//! Items, records, and the log of a session.
//!
//! A session is an append-only log of [`Record`]s. A record of kind `turn` names the place that it continues; the
//! history is the path from the root to the newest turn. Nothing here knows HTTP, stores, or a format's members.

mod client_case;
mod format;
mod item;
mod joined;
mod log;
mod record;

pub use client_case::ClientCase;
pub use format::{Format, InvalidFormat};
pub use item::{About, Author, Canonical, Item};
pub use log::{Log, Path};
pub use record::{Envelope, Parent, Place, Record, RecordError, RecordId, Turn, TurnParts, TurnState};

#[cfg(test)]
pub(crate) mod fixtures;
