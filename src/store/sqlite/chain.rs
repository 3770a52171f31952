//! The table of turns, in which each session's turns are a chain.
//!
//! Saves: an append writes at the end of the table and to the session's row. An index of all turns has a page of its own
//! for each session that speaks.
//! Without it: 64 sessions that take turns write 64 pages more for each 64 turns, which was most of an append's cost.
//! Held by: `turns_of_many_long_sessions_share_the_pages_that_they_are_written_to`, in `log/tests.rs`.
//!
//! ```text
//! sessions.touched ──▶ turn 18 ──previous──▶ turn 17 ──▶ turn 16 ──▶ … ──▶ turn 1
//!                                                          ▲ every sixteenth is in an index
//! ```
//!
//! Loads want the newest turns, which stand at the beginning of the chain. What is far from them is reached by the
//! sixteenth turn after it.
//!
//! A turn is found by its id in a few steps, too. Ids grow along the chain, but for those of turns that came late or after
//! one from a clock that was ahead. The highest id up to a turn never falls: it tells where an id belongs. Turns
//! that are not where their ids belong are in another index.
//!
//! Each step is checked: a chain that leads to the turn of another session, or to none, is damaged or ends there.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::session_row::SessionRow;
use crate::{
    history::{Record, RecordId},
    store::{Retention, trim::opens_exchange},
};

/// What an append executes.
pub(super) const INSERT: &str = "INSERT INTO turns (session, seq, previous, id, highest, opens, record) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

pub(super) const STEP: &str =
    "SELECT previous, id, coalesce(highest, id) FROM turns WHERE place = ?1 AND session = ?2 AND seq = ?3";
const READ: &str = "
    SELECT previous, id, iif(length(record) <= ?4, record, NULL) FROM turns
    WHERE place = ?1 AND session = ?2 AND seq = ?3";
const SIXTEENTH: &str = "
    SELECT place, seq FROM turns WHERE session = ?1 AND seq % 16 = 0 AND seq >= ?2 ORDER BY seq LIMIT 1";

/// What [`reaching`] looks at.
pub(super) const PROBE: &str = "
    SELECT place, coalesce(highest, id) FROM turns WHERE session = ?1 AND seq % 16 = 0 AND seq = ?2";
const LATE: &str = "SELECT seq FROM turns WHERE session = ?1 AND id = ?2 AND highest IS NOT NULL";

pub(super) const REMOVE_BROKEN: &str = "
    DELETE FROM turns WHERE place IN (
        SELECT place FROM turns WHERE session IN (SELECT value FROM json_each(?1)) LIMIT ?2)";

/// The turns after some place of a log, with the ids that their rows name.
pub(super) struct ChainRecords {
    pub(super) records: Vec<(RecordId, Bytes)>,
    /// The turn at that place, if it is known.
    pub(super) before: Option<RecordId>,
}

/// Adds a turn behind all others, of whichever session; answers its place. `highest` is the highest id of the session's
/// turns with this one.
pub(super) fn insert(
    connection: &Connection,
    session: i64,
    seq: u64,
    previous: Option<i64>,
    turn: &Record,
    highest: Option<RecordId>,
) -> rusqlite::Result<i64> {
    let highest = highest.filter(|highest| *highest != turn.id());
    connection.prepare_cached(INSERT)?.execute(params![
        session,
        seq as i64,
        previous,
        turn.id().as_bytes(),
        highest.as_ref().map(RecordId::as_bytes),
        opens_exchange(turn),
        &turn.bytes()[..]
    ])?;
    Ok(connection.last_insert_rowid())
}

/// The turn's number in the log, kept or trimmed.
pub(super) fn number_of(
    connection: &Connection,
    session: &SessionRow,
    id: RecordId,
) -> rusqlite::Result<Option<u64>> {
    let mut at = reaching(connection, session, id)?;
    while let Some((place, seq)) = at {
        let found = link(connection, session.row, place, seq, |row| {
            let id = |column| row.get(column).map(RecordId::from_bytes);
            Ok((row.get(0)?, id(1)?, id(2)?))
        });
        let Some((previous, this, highest)) = found? else { break };
        if this == id {
            return Ok(Some(seq));
        }
        if highest < id {
            break;
        }
        at = before(previous, seq);
    }
    connection
        .prepare_cached(LATE)?
        .query_row(params![session.row, id.as_bytes()], |row| row.get::<_, i64>(0).map(|seq| seq as u64))
        .optional()
}

/// A turn up to which an id that high was there, and at most sixteen turns before it none was: the newest or, where
/// sixteenths tell, one of those. It is looked for from the newest on in longer and longer strides, then by halves.
fn reaching(
    connection: &Connection,
    session: &SessionRow,
    id: RecordId,
) -> rusqlite::Result<Option<(i64, u64)>> {
    let mut probe = connection.prepare_cached(PROBE)?;
    let mut found = session.newest();
    let (mut low, mut high, mut stride) = (1, session.head.count / 16 + 1, 1);
    while low < high {
        let middle = high.saturating_sub(stride).max(low + (high - low) / 2);
        let highest = |row: &Row<'_>| Ok((row.get(0)?, RecordId::from_bytes(row.get(1)?)));
        // What is not there was trimmed long ago.
        match probe.query_row(params![session.row, 16 * middle as i64], highest).optional()? {
            Some((place, highest)) if highest >= id => {
                (found, high, stride) = (Some((place, 16 * middle)), middle, 2 * stride);
            }
            _ => low = middle + 1,
        }
    }
    Ok(found)
}

/// The records after the first `skipped` turns; fewer where one is missing, or larger than `largest` bytes.
pub(super) fn records(
    connection: &Connection,
    session: &SessionRow,
    skipped: u64,
    largest: usize,
) -> rusqlite::Result<ChainRecords> {
    let largest = i64::try_from(largest).unwrap_or(i64::MAX);
    let mut read = connection.prepare_cached(READ)?;
    let (mut records, mut at) = (Vec::new(), session.newest());
    let known = loop {
        let Some((place, seq)) = at else { break None };
        if seq <= skipped {
            break link(connection, session.row, place, seq, |row| row.get(1).map(RecordId::from_bytes))?;
        }
        let found = read
            .query_row(params![place, session.row, seq as i64, largest], |row| {
                let record = row.get_ref(2)?.as_blob_or_null()?.map(Bytes::copy_from_slice);
                Ok((row.get(0)?, RecordId::from_bytes(row.get(1)?), record))
            })
            .optional()?;
        let Some((previous, id, Some(record))) = found else { break None };
        records.push((id, record));
        at = before(previous, seq);
    };
    records.reverse();
    Ok(ChainRecords { records, before: known })
}

/// Looks at turns from the oldest on, in the order that the chain does not have: in parts that end with a sixteenth.
pub(super) struct OldestTurns<'a> {
    connection: &'a Connection,
    session: &'a SessionRow,
    /// Number, bytes and whether it opens an exchange, of some turns in a row.
    part: Vec<(u64, u64, bool)>,
}

const SIZE: &str = "
    SELECT previous, coalesce(length(record), 0), opens FROM turns WHERE place = ?1 AND session = ?2 AND seq = ?3";

impl<'a> OldestTurns<'a> {
    pub(super) fn new(connection: &'a Connection, session: &'a SessionRow) -> Self {
        Self { connection, session, part: Vec::new() }
    }

    /// Bytes of the turn of this number, and whether it opens an exchange.
    pub(super) fn look(&mut self, number: u64) -> rusqlite::Result<(u64, bool)> {
        let found = |part: &[(u64, u64, bool)]| {
            part.iter().find(|(at, ..)| *at == number).map(|(_, bytes, opens)| (*bytes, *opens))
        };
        if let Some(found) = found(&self.part) {
            return Ok(found);
        }
        self.part.clear();
        let mut at = from(self.connection, self.session, number)?;
        while let Some((place, seq)) = at.filter(|(_, seq)| *seq >= number) {
            let size = self
                .connection
                .prepare_cached(SIZE)?
                .query_row(params![place, self.session.row, seq as i64], |row| {
                    Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, i64>(1)? as u64, row.get::<_, bool>(2)?))
                })
                .optional()?;
            let Some((previous, bytes, opens)) = size else { break };
            self.part.push((seq, bytes, opens));
            at = before(previous, seq);
        }
        // One that is not there has no size, and nothing hangs on it.
        Ok(found(&self.part).unwrap_or((0, true)))
    }
}

/// Records of a log from one place on, oldest first, as far as `takes` likes their sizes.
pub(super) fn page(
    connection: &Connection,
    session: &SessionRow,
    first: u64,
    mut takes: impl FnMut(usize, u64) -> bool,
) -> rusqlite::Result<Vec<(RecordId, Bytes)>> {
    let mut read = connection.prepare_cached(READ)?;
    let mut page = Vec::new();
    let mut number = first + 1;
    while number <= session.head.count {
        // A part of the chain, newest first.
        let (mut part, mut at) = (Vec::new(), from(connection, session, number)?);
        while let Some((place, seq)) = at.filter(|(_, seq)| *seq >= number) {
            part.push((place, seq));
            at = step(connection, session.row, place, seq)?;
        }
        if part.last().is_none_or(|(_, seq)| *seq != number) {
            break;
        }
        for (place, seq) in part.into_iter().rev() {
            let found = read
                .query_row(params![place, session.row, seq as i64, i64::MAX], |row| {
                    let id = RecordId::from_bytes(row.get(1)?);
                    let record = row.get_ref(2)?.as_blob_or_null()?;
                    let taken = record.is_some_and(|record| takes(page.len(), record.len() as u64));
                    Ok(record.filter(|_| taken).map(|record| (id, Bytes::copy_from_slice(record))))
                })
                .optional()?
                .flatten();
            let Some(found) = found else { return Ok(page) };
            page.push(found);
        }
        number = first + 1 + page.len() as u64;
    }
    Ok(page)
}

/// Forgets the records of the turns after the one and up to the other, and those turns that were trimmed long ago.
pub(super) fn trim(
    connection: &Connection,
    session: &SessionRow,
    after: u64,
    upto: u64,
) -> rusqlite::Result<()> {
    let mut at = find(connection, session, upto)?;
    while let Some((place, seq)) = at.filter(|(_, seq)| *seq > after) {
        connection.prepare_cached("UPDATE turns SET record = NULL WHERE place = ?1")?.execute([place])?;
        at = step(connection, session.row, place, seq)?;
    }
    let forgotten = upto.saturating_sub(Retention::REMEMBERED as u64);
    if let Some((place, _)) = find(connection, session, forgotten)? {
        remove(connection, session.row, place, u64::MAX)?;
    }
    Ok(())
}

/// What [`remove`] did.
pub(super) struct Removed {
    pub(super) turns: u64,
    /// The number of the oldest of them.
    oldest: Option<u64>,
    /// The place of the newest that is left.
    pub(super) left: Option<i64>,
}

impl Removed {
    /// Whether the chain of a log of which `trimmed` turns were trimmed ended too early: turns may be left that it does not
    /// lead to.
    pub(super) fn met_a_gap(&self, trimmed: u64) -> bool {
        let oldest = 1 + trimmed.saturating_sub(Retention::REMEMBERED as u64);
        self.left.is_none() && self.oldest.is_none_or(|reached| reached > oldest)
    }
}

/// Removes at most `most` turns of sessions whose chains are broken; answers their number. The whole table is looked
/// through for them: nothing of a conversation is left behind.
pub(super) fn remove_broken(connection: &Connection, sessions: &[i64], most: u64) -> rusqlite::Result<u64> {
    tracing::warn!(
        rows = ?sessions,
        "turns of sessions that are removed are missing from the session database, which is damaged or was changed \
         by another program: all of it is looked through for the rest"
    );
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let removed =
        connection.prepare_cached(REMOVE_BROKEN)?.execute(params![format!("{sessions:?}"), most])?;
    Ok(removed as u64)
}

/// Removes at most `most` turns, from this place backwards.
pub(super) fn remove(
    connection: &Connection,
    session: i64,
    newest: i64,
    most: u64,
) -> rusqlite::Result<Removed> {
    let mut look =
        connection.prepare_cached("SELECT previous, seq FROM turns WHERE place = ?1 AND session = ?2")?;
    let mut delete = connection.prepare_cached("DELETE FROM turns WHERE place = ?1")?;
    let mut removed = Removed { turns: 0, oldest: None, left: None };
    let mut at = Some(newest);
    while let Some(place) = at {
        let found = look.query_row([place, session], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)));
        let Some((previous, seq)) = found.optional()? else { break };
        if removed.turns == most {
            removed.left = at;
            break;
        }
        removed.turns += delete.execute([place])? as u64;
        (removed.oldest, at) = (Some(seq), previous);
    }
    Ok(removed)
}

/// Where the turn of this number is. Zero is nowhere.
fn find(connection: &Connection, session: &SessionRow, number: u64) -> rusqlite::Result<Option<(i64, u64)>> {
    if number == 0 {
        return Ok(None);
    }
    let mut at = from(connection, session, number)?;
    while let Some((place, seq)) = at.filter(|(_, seq)| *seq > number) {
        at = step(connection, session.row, place, seq)?;
    }
    Ok(at)
}

/// A turn from which a few steps lead to the one of this number: a sixteenth, or the newest.
fn from(connection: &Connection, session: &SessionRow, number: u64) -> rusqlite::Result<Option<(i64, u64)>> {
    let near = connection
        .prepare_cached(SIXTEENTH)?
        .query_row([session.row, number as i64], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)))
        .optional()?;
    Ok(near.or_else(|| session.newest()))
}

/// The turn before.
fn step(connection: &Connection, session: i64, place: i64, seq: u64) -> rusqlite::Result<Option<(i64, u64)>> {
    let previous = link(connection, session, place, seq, |row| row.get(0))?;
    Ok(before(previous.flatten(), seq))
}

/// What is wanted of the turn at this place, if it is the one that the chain says.
fn link<T>(
    connection: &Connection,
    session: i64,
    place: i64,
    seq: u64,
    wanted: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Option<T>> {
    connection.prepare_cached(STEP)?.query_row(params![place, session, seq as i64], wanted).optional()
}

fn before(previous: Option<i64>, seq: u64) -> Option<(i64, u64)> {
    previous.map(|place| (place, seq.saturating_sub(1)))
}
