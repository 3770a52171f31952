//! What stands under a session's key: see the layout in the documentation of the module above.

use bytes::Bytes;
use serde::Deserialize;

use super::ends::End;
use crate::{
    history::{RecordError, Turn, TurnId},
    session::{KeyDigest, SessionKey},
    store::{Cursor, Epoch},
};

/// What a value says of its log.
#[derive(Deserialize)]
pub(super) struct Header {
    session: String,
    epoch: String,
    count: u64,
    trimmed: u64,
    at: u64,
    newest: String,
    head: usize,
    first: usize,
    last: usize,
}

/// A header that was read and is of the session that was asked for.
pub(super) struct Log {
    pub(super) cursor: Cursor,
    pub(super) kept: u64,
    /// Microseconds since 1970.
    pub(super) at: u64,
    pub(super) first: usize,
    head: usize,
    last: usize,
}

impl Log {
    /// The length of a frame's line, its line feed included.
    pub(super) const FRAME: usize = FRAME;

    /// Reads the header that a value begins with.
    pub(super) fn read(value: &[u8], session: KeyDigest) -> Result<Self, RecordError> {
        let line = &value[..memchr::memchr(b'\n', value).unwrap_or(value.len())];
        let version = version(line).ok_or(RecordError::Malformed("the value is no session log"))?;
        if version.split('.').next() != Some("1") {
            return Err(RecordError::Layout(version.to_owned()));
        }
        let header: Header =
            serde_json::from_slice(line).map_err(|error| RecordError::Header(error.column()))?;
        if header.session != session.to_hex() {
            return Err(RecordError::Foreign);
        }
        let cursor = cursor(&header.epoch, header.count, &header.newest)
            .ok_or(RecordError::Malformed("the log's header holds no cursor"))?;
        let kept = header
            .count
            .checked_sub(header.trimmed)
            .ok_or(RecordError::Malformed("the log's header counts fewer turns than none"))?;
        let Header { at, first, head, last, .. } = header;
        Ok(Self { cursor, kept, at, first, head, last })
    }

    /// Where the log ends, if the record of its newest turn is so long.
    pub(super) fn end(&self, record: usize) -> End {
        End { head: self.head, last: self.last, end: self.last + FRAME + record + 1 }
    }

    /// The turns of these frames. `known` tells how many of the log's turns stand before them.
    pub(super) fn turns(
        &self,
        frames: &Bytes,
        key: &SessionKey,
        known: Option<u64>,
    ) -> Result<Vec<Turn>, RecordError> {
        let mut turns = Vec::new();
        let mut at = 0;
        while at < frames.len() {
            let (id, len) = frame_line(frames, at).ok_or(DAMAGED)?;
            let record = at + FRAME;
            let end =
                record.checked_add(len).filter(|end| frames.get(*end) == Some(&b'\n')).ok_or(DAMAGED)?;
            let turn = Turn::decode(frames.slice(record..end), key.digest())?;
            if turn.id() != id {
                return Err(RecordError::Malformed("a frame names another turn than its record"));
            }
            turns.push(turn);
            at = end + 1;
        }
        let expected = known.map_or(self.kept, |known| self.cursor.count.saturating_sub(known));
        if turns.len() as u64 != expected
            || turns.last().is_some_and(|turn| Some(turn.id()) != self.cursor.newest)
        {
            return Err(RecordError::Malformed("the log holds more or fewer turns than it says"));
        }
        Ok(turns)
    }
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
const FRAME: usize = 79;

/// The turn, and the length of its record, of the frame that begins there.
pub(super) fn frame_line(frames: &[u8], at: usize) -> Option<(TurnId, usize)> {
    let line = frames.get(at..at + FRAME)?;
    let fits = line.starts_with(b"{\"turn\":\"") && &line[41..49] == b"\",\"len\":" && line.ends_with(b"}\n");
    let id = std::str::from_utf8(&line[9..41]).ok().filter(|_| fits)?;
    let len = std::str::from_utf8(&line[49..59]).ok()?;
    Some((TurnId::from_bytes(unhex(id)?), len.trim_start().parse().ok()?))
}

/// A cursor as scripts and headers write it.
pub(super) fn cursor(epoch: &str, count: u64, newest: &str) -> Option<Cursor> {
    let epoch = Epoch::from_bytes(unhex(epoch)?);
    let newest = Some(unhex(newest)?).filter(|id| *id != [0; 16]).map(TurnId::from_bytes);
    (newest.is_some() == (count > 0)).then_some(Cursor { epoch, count, newest })
}

/// 16 bytes as 32 hex digits.
pub(super) fn hex(bytes: &[u8; 16]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits =
        bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    digits.map(char::from).collect()
}

fn unhex(text: &str) -> Option<[u8; 16]> {
    let text = text.as_bytes();
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    (text.len() == 32).then_some(bytes)
}
