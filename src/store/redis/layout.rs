//! What stands under a session's key: see the layout in the documentation of the module above. Two languages write it,
//! this file and `lua/shared.lua`.
//!
//! Saves: a turn to a log that is as this process read it last costs a script that only compares and writes, half of the
//! server's time of the one that reads the log's header itself.
//! Without it: every turn goes through `lua/append.lua`, which is right as well, and this file only reads.
//! Held by: `a_header_says_what_is_read_from_it`, below, and `a_log_is_the_same_whoever_worked_it_out` in
//! `tests/stores/redis/server.rs`.

use std::{iter, ops::Range};

use bytes::Bytes;
use serde::Deserialize;

use super::{
    hex::{Hex, hex, unhex},
    log_ends::{HeaderRest, LogEnd},
};
use crate::{
    history::{Record, RecordError, RecordId},
    session::{KeyDigest, SessionKey},
    store::{Cursor, Epoch, trim::opens_exchange},
};

/// What a value says of its log.
#[derive(Deserialize)]
struct Header<'a> {
    v: &'a str,
    session: &'a str,
    epoch: &'a str,
    fresh: u8,
    count: u64,
    trimmed: u64,
    at: u64,
    created: u64,
    newest: &'a str,
    highest: &'a str,
    head: usize,
    ids: usize,
    first: usize,
    last: usize,
    opened: usize,
    model: usize,
    title: usize,
}

/// A header that was read and is of the session that was asked for.
pub(super) struct LogHeader {
    pub(super) cursor: Cursor,
    pub(super) kept: u64,
    /// Microseconds since 1970.
    pub(super) at: u64,
    pub(super) created: u64,
    pub(super) first: usize,
    head: usize,
    last: usize,
    rest: Option<HeaderRest>,
}

impl LogHeader {
    /// The length of a frame's line, its line feed included.
    pub(super) const FRAME: usize = FRAME;

    /// Reads the header that a value begins with.
    pub(super) fn read(value: &[u8], session: KeyDigest) -> Result<Self, RecordError> {
        let line = &value[..memchr::memchr(b'\n', value).unwrap_or(value.len())];
        let version = version(line).ok_or(RecordError::Malformed("the value is no session log"))?;
        if version.split('.').next() != Some("1") {
            return Err(RecordError::Layout(version.to_owned()));
        }
        let header: Header<'_> =
            serde_json::from_slice(line).map_err(|error| RecordError::Header(error.column()))?;
        if header.session != hex(session.as_bytes()).as_str() {
            return Err(RecordError::Foreign);
        }
        let cursor = cursor(header.epoch, header.count, header.newest)
            .ok_or(RecordError::Malformed("the log's header holds no cursor"))?;
        let kept = header
            .count
            .checked_sub(header.trimmed)
            .ok_or(RecordError::Malformed("the log's header counts fewer turns than none"))?;
        let Header { fresh, trimmed, at, created, ids, first, head, last, opened, model, title, .. } = header;
        let as_written = header.v == "1.0" && head == HEAD && header.highest == header.newest;
        let fresh = fresh == 1;
        let rest = HeaderRest { fresh, trimmed, at, created, ids, first, opened, model, title };
        Ok(Self { cursor, kept, at, created, first, head, last, rest: as_written.then_some(rest) })
    }

    /// Where the log ends, if the record of its newest turn has this length.
    pub(super) fn end(&self, record: usize) -> LogEnd {
        let Self { head, last, rest, .. } = *self;
        LogEnd { head, last, end: last + FRAME + record + 1, rest }
    }

    /// The turns of these frames. `known` tells how many of the log's turns stand before them.
    pub(super) fn turns(
        &self,
        frames: &Bytes,
        key: &SessionKey,
        known: Option<u64>,
    ) -> Result<Vec<Record>, RecordError> {
        let turns = records(frames, key)?;
        let expected = known.map_or(self.kept, |known| self.cursor.count.saturating_sub(known));
        if turns.len() as u64 != expected
            || turns.last().is_some_and(|turn| Some(turn.id()) != self.cursor.newest)
        {
            return Err(RecordError::Malformed("the log holds more or fewer turns than it says"));
        }
        Ok(turns)
    }
}

/// The records of these frames.
pub(super) fn records(frames: &Bytes, key: &SessionKey) -> Result<Vec<Record>, RecordError> {
    let mut records = Vec::new();
    let mut at = 0;
    while at < frames.len() {
        let (id, len) = frame_line(frames, at).ok_or(DAMAGED)?;
        let begin = at + FRAME;
        let end = begin.checked_add(len).filter(|end| frames.get(*end) == Some(&b'\n')).ok_or(DAMAGED)?;
        let record = Record::decode(frames.slice(begin..end), key.digest())?;
        if record.id() != id {
            return Err(RecordError::Malformed("a frame names another turn than its record"));
        }
        records.push(record);
        at = end + 1;
    }
    Ok(records)
}

/// What every version of the layout begins with.
fn version(line: &[u8]) -> Option<&str> {
    let rest = line.strip_prefix(b"{\"v\":\"")?;
    let version = std::str::from_utf8(&rest[..memchr::memchr(b'"', rest)?]).ok()?;
    let plausible = version.len() <= 16 && version.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    plausible.then_some(version)
}

const DAMAGED: RecordError = RecordError::Malformed("a frame of the log is damaged");

/// The length of a frame's line, its line feed included.
const FRAME: usize = 89;

/// The turn, and the length of its record, of the frame that begins there.
pub(super) fn frame_line(frames: &[u8], at: usize) -> Option<(RecordId, usize)> {
    let line = frames.get(at..at + FRAME)?;
    let fits = line.starts_with(b"{\"turn\":\"") && &line[41..49] == b"\",\"len\":" && line.ends_with(b"}\n");
    let id = std::str::from_utf8(&line[9..41]).ok().filter(|_| fits)?;
    let len = std::str::from_utf8(&line[49..59]).ok()?;
    Some((RecordId::from_bytes(unhex(id)?), len.trim_start().parse().ok()?))
}

/// A cursor as scripts and headers write it.
fn cursor(epoch: &str, count: u64, newest: &str) -> Option<Cursor> {
    let epoch = Epoch::from_bytes(unhex(epoch)?);
    let newest = turn_id(newest)?;
    (newest.is_some() == (count > 0)).then_some(Cursor { epoch, count, newest })
}

/// A turn as headers name it, or that there is none; `None` for what is neither.
pub(super) fn turn_id(digits: &str) -> Option<Option<RecordId>> {
    Some(Some(unhex(digits)?).filter(|id| *id != [0; 16]).map(RecordId::from_bytes))
}

/// The length of the header's line that this version writes, its line feed included.
pub(super) const HEAD: usize = 409;

/// Where the times of the newest turn and of the first stand in it.
pub(super) const TIME: Range<usize> = 167..183;
pub(super) const CREATED: Range<usize> = 194..210;

/// The header's line of a log whose newest turn is at this cursor, and has the highest id of all; `last` is where
/// it begins.
pub(super) fn head_line(session: KeyDigest, cursor: &Cursor, rest: &HeaderRest, last: usize) -> Vec<u8> {
    let newest = newest_hex(cursor.newest);
    let mut line = Vec::with_capacity(HEAD);
    let number = |line: &mut Vec<u8>, name: &str, value: u64, width: usize| {
        line.extend_from_slice(name.as_bytes());
        padded(line, value, width);
    };
    let text = |line: &mut Vec<u8>, name: &str, value: &[u8]| {
        line.extend_from_slice(name.as_bytes());
        line.extend_from_slice(value);
        line.push(b'"');
    };
    number(&mut line, r#"{"v":"1.0","head":"#, HEAD as u64, 5);
    text(&mut line, r#","session":""#, hex(session.as_bytes()).as_bytes());
    text(&mut line, r#","epoch":""#, hex(cursor.epoch.as_bytes()).as_bytes());
    number(&mut line, r#","fresh":"#, rest.fresh.into(), 1);
    number(&mut line, r#","count":"#, cursor.count, 10);
    number(&mut line, r#","trimmed":"#, rest.trimmed, 10);
    number(&mut line, r#","at":"#, rest.at, 16);
    number(&mut line, r#","created":"#, rest.created, 16);
    text(&mut line, r#","newest":""#, newest.as_bytes());
    text(&mut line, r#","highest":""#, newest.as_bytes());
    number(&mut line, r#","ids":"#, rest.ids as u64, 6);
    number(&mut line, r#","first":"#, rest.first as u64, 10);
    number(&mut line, r#","last":"#, last as u64, 10);
    number(&mut line, r#","opened":"#, rest.opened as u64, 10);
    number(&mut line, r#","model":"#, rest.model as u64, 10);
    number(&mut line, r#","title":"#, rest.title as u64, 10);
    line.extend_from_slice(b"}\n");
    line
}

/// The frame of a turn; `back` is the length of the one before it.
pub(super) fn frame_of(turn: &Record, back: usize) -> Vec<u8> {
    let record = turn.bytes();
    let mut frame = Vec::with_capacity(FRAME + record.len() + 1);
    frame.extend_from_slice(br#"{"turn":""#);
    frame.extend_from_slice(hex(turn.id().as_bytes()).as_bytes());
    frame.extend_from_slice(br#"","len":"#);
    padded(&mut frame, record.len() as u64, 10);
    frame.extend_from_slice(br#","back":"#);
    padded(&mut frame, back as u64, 10);
    frame.extend_from_slice(if opens_exchange(turn) { b",\"opens\":1" } else { b",\"opens\":0" });
    frame.extend_from_slice(b"}\n");
    frame.extend_from_slice(record);
    frame.push(b'\n');
    frame
}

/// A number with blanks before it.
fn padded(line: &mut Vec<u8>, number: u64, width: usize) {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(number);
    line.extend(iter::repeat_n(b' ', width.saturating_sub(digits.len())));
    line.extend_from_slice(digits.as_bytes());
}

/// A turn as headers name it; zeros for none.
pub(super) fn newest_hex(id: Option<RecordId>) -> Hex {
    hex(&id.map_or([0; 16], |id| *id.as_bytes()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::{session::Principal, store::Epoch};

    #[test]
    fn a_header_says_what_is_read_from_it() {
        let session = SessionKey::new("", Principal::anonymous(), "a".parse().unwrap()).digest();
        let newest = Some(RecordId::from_bytes([0xa7; 16]));
        let cursor = Cursor { epoch: Epoch::from_bytes([0x5c; 16]), count: 1_234, newest };
        for (number, fresh) in [(0, true), (7, false), (99_999, true)] {
            let ids = number as usize;
            let (at, created) = (17 + number, 5 + number);
            let (trimmed, first, opened, model, title) = (1_000, 500, 4_000, 4_500, 600);
            let rest = HeaderRest { fresh, trimmed, at, created, ids, first, opened, model, title };
            let line = head_line(session, &cursor, &rest, 5_000);
            assert_eq!(line.len(), HEAD);
            let time = |range| std::str::from_utf8(&line[range]).unwrap().trim_start().parse();
            assert_eq!((time(TIME), time(CREATED)), (Ok(at), Ok(created)), "where its times stand");
            let log = LogHeader::read(&line, session).unwrap();
            assert_eq!((log.cursor, log.kept, log.at), (cursor, 234, rest.at));
            let end = LogEnd { head: HEAD, last: 5_000, end: 5_000 + FRAME + 20 + 1, rest: Some(rest) };
            assert_eq!(log.end(20), end);
        }
    }
}
