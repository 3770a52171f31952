//! Appends turns to the store: only those that are missing, and only after turns of the same source.

use std::time::Duration;

use backon::BackoffBuilder;
use tokio::time::{Instant, sleep, timeout};
use tower_session_memory::{
    history::{Record, Turn},
    session::SessionKey,
    store::{Appended, DynHistoryStore, Loaded, StoreError, StoreErrorKind},
};

use super::report::{Count, Outcome, Skipped};

/// Time limits of the store.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    /// Limit of one call.
    pub(super) attempt: Duration,
    /// Limit of a call with its repetitions.
    pub(super) retry: Duration,
}

/// Stores the turns that are missing; with `dry_run`, only counts them.
///
/// # Errors
///
/// [`StoreError`], when the store fails for longer than `patience`. Appended turns stay, and the same call goes on
/// after them.
pub(super) async fn write(
    store: &dyn DynHistoryStore,
    key: &SessionKey,
    turns: &[Record],
    dry_run: bool,
    patience: Patience,
) -> Result<Outcome, StoreError> {
    let loaded = again(patience, async || store.load_dyn(key, None.into()).await).await?;
    let (first, skipped) = compare(&loaded, turns);
    let mut outcome = Outcome { present: count(&turns[..first]), skipped, ..Outcome::default() };
    if outcome.skipped.is_some() {
        return Ok(outcome);
    }
    if dry_run {
        outcome.imported = count(&turns[first..]);
        return Ok(outcome);
    }
    let mut at = loaded.cursor;
    for (place, turn) in turns.iter().enumerate().skip(first) {
        match again(patience, async || store.append_dyn(key, &at, turn).await).await? {
            Appended::Appended { cursor, .. } => {
                outcome.imported.add(Count::turn(items(turn)));
                let alone = cursor.count == place as u64 + 1;
                at = cursor;
                if !alone {
                    outcome.skipped = Some(Skipped::Busy { missing: turns.len() - place - 1 });
                    break;
                }
            }
            // An import beside this one was faster, or an answer was lost.
            Appended::AlreadyThere(cursor) => {
                outcome.present.add(Count::turn(items(turn)));
                at = cursor;
            }
            Appended::Gone => {
                outcome.skipped = Some(Skipped::Deleted);
                break;
            }
        }
    }
    Ok(outcome)
}

/// The number of turns that are in the log, and the reason why the others must not follow.
fn compare(loaded: &Loaded, turns: &[Record]) -> (usize, Option<Skipped>) {
    let trimmed = usize::try_from(loaded.trimmed).unwrap_or(usize::MAX);
    let kept = turns.get(trimmed..).unwrap_or_default();
    let pairs = kept.iter().zip(&loaded.records);
    let common = pairs.take_while(|(ours, stored)| ours.id() == stored.id()).count();
    let present = turns.len().min(trimmed) + common;
    if turns.is_empty() || loaded.records.is_empty() {
        (present, None)
    } else if common == 0 {
        (0, Some(if kept.is_empty() { Skipped::Trimmed } else { Skipped::Occupied }))
    } else if present == turns.len() || common == loaded.records.len() {
        (present, None)
    } else {
        (present, Some(Skipped::Forked { missing: turns.len() - present }))
    }
}

fn count(turns: &[Record]) -> Count {
    Count { turns: turns.len(), messages: turns.iter().map(items).sum() }
}

fn items(turn: &Record) -> usize {
    turn.turn().map_or(0, Turn::len)
}

/// Repeats a call after transient errors. A turn that is appended twice is stored once.
async fn again<T>(
    patience: Patience,
    mut call: impl AsyncFnMut() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let started = Instant::now();
    let mut pauses = backon::ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(20))
        .with_max_delay(Duration::from_secs(2))
        .with_jitter()
        .without_max_times()
        .build();
    loop {
        let failed = match timeout(patience.attempt, call()).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) if !error.is_transient() => return Err(error),
            Ok(Err(error)) => error,
            Err(_) => StoreError::new(StoreErrorKind::Timeout),
        };
        let pause = pauses.next().unwrap_or(patience.attempt);
        if started.elapsed() + pause > patience.retry {
            return Err(failed);
        }
        sleep(pause).await;
    }
}

#[cfg(test)]
mod tests;
