//! Whether turns stand where they were appended.

use std::collections::HashMap;

use super::seal_error::SealError;
use crate::{
    history::RecordId,
    store::{Cursor, Epoch, Loaded},
};

/// Checks the turns of a load, which begin after `after` unless they begin at the start of the log.
///
/// A turn names the place that it was built on: how long the log was, and its newest turn. A turn of another
/// epoch is one that a session which had expired meanwhile begins with: the first. One that was built on no
/// session may have raced others for that. `None` is a turn whose place is not known.
pub(super) fn check(
    loaded: &Loaded,
    after: Option<&Cursor>,
    opened: &[(RecordId, Option<Cursor>)],
) -> Result<(), SealError> {
    let before = loaded.cursor.count.checked_sub(opened.len() as u64).ok_or(SealError::Misplaced)?;
    let mut places = HashMap::with_capacity(opened.len() + 1);
    let newest = after.filter(|_| !loaded.from_start).and_then(|after| after.newest);
    places.extend(newest.map(|newest| (newest, before)));
    let start = Start { before, known: newest.is_some() };
    for (place, (id, _)) in (before + 1..).zip(opened) {
        if places.insert(*id, place).is_some() {
            return Err(SealError::Misplaced);
        }
    }
    if opened.last().is_some_and(|(id, _)| loaded.cursor.newest != Some(*id)) {
        return Err(SealError::Misplaced);
    }
    for (place, (_, base)) in (before + 1..).zip(opened) {
        match base {
            Some(base) if !stands(base, place, start, loaded.cursor.epoch, &places) => {
                return Err(SealError::Misplaced);
            }
            _ => {}
        }
    }
    Ok(())
}

fn stands(base: &Cursor, place: u64, start: Start, epoch: Epoch, places: &HashMap<RecordId, u64>) -> bool {
    if base.epoch != epoch {
        return place == 1 || base.epoch == Epoch::UNBORN;
    }
    let Some(newest) = base.newest else { return base.count == 0 };
    match places.get(&newest) {
        Some(found) => *found == base.count && base.count < place,
        None if base.count < start.before || (base.count == start.before && !start.known) => true,
        // A server lost it after it was acknowledged, or it was taken away.
        None => {
            tracing::warn!(
                place,
                built_on = base.count,
                "a stored turn misses the turn that it was built on"
            );
            true
        }
    }
}

/// What comes before the turns that are checked.
#[derive(Clone, Copy)]
struct Start {
    /// How many turns.
    before: u64,
    /// Whether the last of them is known.
    known: bool,
}
