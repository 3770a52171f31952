//! The record that a store keeps of a turn, and of whatever else later versions add to a log.
//!
//! The format of records and of the envelopes that wrappers put around them is documented in `store/format.md`.
//! [`Record`] is what stores see: bytes with an id and a parent. [`Turn`] reads a record of kind `turn`.

mod encoded;
mod envelope;
mod error;
mod header;
mod id;
mod memory;
mod parts;
mod place;
mod sum;
mod turn;

pub use encoded::Record;
pub use envelope::Envelope;
pub use error::RecordError;
pub use id::RecordId;
pub use parts::{TurnParts, TurnState};
pub use place::{Parent, Place};
pub use turn::Turn;
