//! Inserting messages into a body without re-serialising it.

use bytes::Bytes;

use crate::protocol::{Draft, Insertion};

/// The body with the insertion after its instructions, as pieces to be sent in a row.
///
/// Nothing is copied: the pieces are slices of the body and the groups themselves. Everything outside the insertion is
/// the client's own bytes.
pub(super) fn insert(draft: &Draft, insertion: &Insertion<'_>) -> Vec<Bytes> {
    let comma = || Bytes::from_static(b",");
    let mut groups = insertion.groups().peekable();
    if groups.peek().is_none() {
        return vec![draft.body.clone()];
    }
    let message_follows = !draft.items.is_empty();
    let message_precedes = !message_follows && !draft.instructions.is_empty();

    let mut pieces = vec![draft.body.slice(..draft.insert_at)];
    if message_precedes {
        pieces.push(comma());
    }
    while let Some(group) = groups.next() {
        pieces.push(group.clone());
        if groups.peek().is_some() || message_follows {
            pieces.push(comma());
        }
    }
    pieces.push(draft.body.slice(draft.insert_at..));
    pieces
}
