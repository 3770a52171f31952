//! Inserting messages into a body without re-serialising it.

use bytes::Bytes;

use super::Draft;

/// The body with `groups` inserted after its instructions, as pieces to be sent in a row.
///
/// A group is one or more raw messages joined by single commas; groups are joined likewise, and empty ones
/// are left out. Nothing is copied: the pieces are slices of the body and the groups themselves. Everything
/// outside the insertion is the client's own bytes.
#[must_use]
pub fn splice(draft: &Draft, groups: &[Bytes]) -> Vec<Bytes> {
    let comma = || Bytes::from_static(b",");
    let mut groups = groups.iter().filter(|group| !group.is_empty()).peekable();
    if groups.peek().is_none() {
        return vec![draft.body.clone()];
    }
    let message_follows = draft.leading < draft.messages.len();
    let message_precedes = !message_follows && !draft.messages.is_empty();

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
