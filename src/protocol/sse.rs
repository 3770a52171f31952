//! Server-sent events: bytes in, borrowed events out.
//!
//! The parser follows the WHATWG HTML standard, "9.2.6 Interpreting an event stream": one leading byte-order
//! mark is skipped; a line ends with CRLF, LF or CR, wherever the chunks are cut; a line that starts with a
//! colon is a comment; one space after the colon of a field is optional; the values of several `data` lines
//! are joined by LF; a blank line ends an event; an event without a `data` line is none; and what is pending
//! when the stream ends is discarded. `id` and `retry` are ignored. Text is not decoded: an event is bytes.
//!
//! Any chunking of the same bytes gives the same events. An event whose data lies within one chunk is handed
//! out as a slice of it; nothing is allocated for it.
//!
//! ```
//! use std::ops::ControlFlow;
//! use tower_session_memory::protocol::sse::{SseItem, Parser};
//!
//! let mut events = Vec::new();
//! let mut parser = Parser::new(1024);
//! for chunk in ["data: 1\r", "\n\r\nevent: x\nda", "ta: 2\n\n"] {
//!     parser.feed(chunk.as_bytes(), |item| {
//!         if let SseItem::Event { name, data } = item {
//!             events.push((name.to_vec(), data.to_vec()));
//!         }
//!         ControlFlow::Continue(())
//!     })?;
//! }
//! assert_eq!(events, [(b"".to_vec(), b"1".to_vec()), (b"x".to_vec(), b"2".to_vec())]);
//! # Ok::<(), tower_session_memory::protocol::sse::EventTooLarge>(())
//! ```

use std::{fmt, mem, ops::ControlFlow, ops::Range};

use memchr::{memchr, memchr2};

const BOM: [u8; 3] = [0xEF, 0xBB, 0xBF];

/// What the parser found.
///
/// `Debug` shows no content.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SseItem<'a> {
    /// The first `data` line of an event has ended; the event itself may have more lines, or never end.
    ///
    /// For readers that act on a line before its blank line comes: some servers end a stream after `data: [DONE]`
    /// and one line end.
    Opens {
        /// The value of the line.
        data: &'a [u8],
        /// Where the line starts in the chunk; 0 if it started in an earlier one.
        at: usize,
    },
    /// A field that the standard does not know, and therefore ignores.
    Unknown {
        /// The field's name.
        name: &'a [u8],
    },
    /// An event.
    Event {
        /// The value of the last `event` line; empty if there was none.
        name: &'a [u8],
        /// The values of the `data` lines, joined by LF. Empty for a `data` line without a value.
        data: &'a [u8],
    },
}

/// An event is larger than the parser's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("a server-sent event is larger than the limit")]
pub struct EventTooLarge;

/// An incremental parser of one event stream.
pub struct Parser {
    limit: usize,
    /// How much of a byte-order mark has been seen; 3 when the stream's start is behind us.
    bom: usize,
    /// The last byte was a CR: an LF right after it belongs to the same line end.
    after_cr: bool,
    /// The line that has not ended yet. The bytes of a comment are not kept.
    line: Vec<u8>,
    comment: bool,
    /// The event that has not ended yet.
    name: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    size: usize,
}

impl Parser {
    /// A parser that holds at most `limit` bytes of one event: the sum of its lines without their ends.
    /// Comments do not count.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            bom: 0,
            after_cr: false,
            line: Vec::new(),
            comment: false,
            name: Vec::new(),
            data: Vec::new(),
            has_data: false,
            size: 0,
        }
    }

    /// Takes the next bytes of the stream and hands `on` what they complete, in order. If it breaks, the rest
    /// of the bytes is not read, and the parser must not be fed again.
    ///
    /// # Errors
    ///
    /// [`EventTooLarge`]: the parser must not be fed again.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        mut on: impl FnMut(SseItem<'_>) -> ControlFlow<()>,
    ) -> Result<(), EventTooLarge> {
        let mut at = self.skip_bom(bytes)?;
        // Where the pending event's only data line lies in `bytes`: it is copied only if it must outlive them.
        let mut here = None;
        while let Some(&next) = bytes.get(at) {
            if mem::take(&mut self.after_cr) && next == b'\n' {
                at += 1;
                continue;
            }
            let Some(length) = memchr2(b'\n', b'\r', &bytes[at..]) else {
                self.keep(&bytes[at..])?;
                break;
            };
            let end = at + length;
            self.after_cr = bytes[end] == b'\r';
            if self.end_line(bytes, at..end, &mut here, &mut on)?.is_break() {
                return Ok(());
            }
            at = end + 1;
        }
        if let Some(range) = here {
            self.data.extend_from_slice(&bytes[range]);
        }
        Ok(())
    }

    /// Where the stream's text starts in these bytes.
    fn skip_bom(&mut self, bytes: &[u8]) -> Result<usize, EventTooLarge> {
        let mut at = 0;
        while self.bom < BOM.len() && at < bytes.len() {
            if bytes[at] != BOM[self.bom] {
                let seen = mem::replace(&mut self.bom, BOM.len());
                if seen > 0 {
                    // What looked like a mark was the start of the first line.
                    self.keep(&BOM[..seen])?;
                }
                return Ok(at);
            }
            at += 1;
            self.bom += 1;
        }
        Ok(at)
    }

    /// Keeps a part of a line whose end has not come.
    fn keep(&mut self, part: &[u8]) -> Result<(), EventTooLarge> {
        self.comment |= self.line.is_empty() && part.first() == Some(&b':');
        if !self.comment {
            self.fits(self.line.len() + part.len())?;
            self.line.extend_from_slice(part);
        }
        Ok(())
    }

    fn fits(&self, line: usize) -> Result<(), EventTooLarge> {
        if self.size.saturating_add(line) > self.limit { Err(EventTooLarge) } else { Ok(()) }
    }

    fn end_line(
        &mut self,
        bytes: &[u8],
        part: Range<usize>,
        here: &mut Option<Range<usize>>,
        on: &mut impl FnMut(SseItem<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, EventTooLarge> {
        if mem::take(&mut self.comment) {
            return Ok(ControlFlow::Continue(()));
        }
        if self.line.is_empty() {
            return self.take_line(bytes, Line::Here(part), here, on);
        }
        self.keep(&bytes[part])?;
        let mut line = mem::take(&mut self.line);
        let flow = self.take_line(bytes, Line::Kept(&line), here, on);
        line.clear();
        self.line = line;
        flow
    }

    fn take_line(
        &mut self,
        bytes: &[u8],
        line: Line<'_>,
        here: &mut Option<Range<usize>>,
        on: &mut impl FnMut(SseItem<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, EventTooLarge> {
        let text = line.text(bytes);
        match text.first() {
            None => return Ok(self.dispatch(bytes, here.take(), on)),
            Some(b':') => return Ok(ControlFlow::Continue(())),
            Some(_) => {}
        }
        self.fits(text.len())?;
        self.size += text.len();
        let (name, value_at) = split(text);
        let value = &text[value_at..];
        match name {
            b"data" if !self.has_data => {
                self.has_data = true;
                match &line {
                    Line::Here(range) => *here = Some(range.start + value_at..range.end),
                    Line::Kept(_) => self.data.extend_from_slice(value),
                }
                return Ok(on(SseItem::Opens { data: value, at: line.start() }));
            }
            b"data" => {
                if let Some(first) = here.take() {
                    self.data.extend_from_slice(&bytes[first]);
                }
                self.data.push(b'\n');
                self.data.extend_from_slice(value);
            }
            b"event" => {
                self.name.clear();
                self.name.extend_from_slice(value);
            }
            b"id" | b"retry" => {}
            name => return Ok(on(SseItem::Unknown { name })),
        }
        Ok(ControlFlow::Continue(()))
    }

    fn dispatch(
        &mut self,
        bytes: &[u8],
        here: Option<Range<usize>>,
        on: &mut impl FnMut(SseItem<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let data = here.map_or(&self.data[..], |range| &bytes[range]);
        let flow = if mem::take(&mut self.has_data) {
            on(SseItem::Event { name: &self.name, data })
        } else {
            ControlFlow::Continue(())
        };
        self.name.clear();
        self.data.clear();
        self.size = 0;
        flow
    }
}

impl fmt::Debug for Parser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parser")
            .field("limit", &self.limit)
            .field("pending", &self.size)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SseItem<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opens { data, at } => {
                f.debug_struct("Opens").field("bytes", &data.len()).field("at", at).finish_non_exhaustive()
            }
            Self::Unknown { .. } => f.debug_struct("Unknown").finish_non_exhaustive(),
            Self::Event { data, .. } => {
                f.debug_struct("Event").field("bytes", &data.len()).finish_non_exhaustive()
            }
        }
    }
}

/// A line that has ended: whole within the chunk, or put together from several.
enum Line<'a> {
    Here(Range<usize>),
    Kept(&'a [u8]),
}

impl<'a> Line<'a> {
    fn text(&self, bytes: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Here(range) => &bytes[range.clone()],
            Self::Kept(line) => line,
        }
    }

    fn start(&self) -> usize {
        match self {
            Self::Here(range) => range.start,
            Self::Kept(_) => 0,
        }
    }
}

/// A line's field name, and where its value starts.
fn split(line: &[u8]) -> (&[u8], usize) {
    match memchr(b':', line) {
        None => (line, line.len()),
        Some(colon) => {
            let space = usize::from(line.get(colon + 1) == Some(&b' '));
            (&line[..colon], colon + 1 + space)
        }
    }
}

#[cfg(test)]
#[path = "sse_tests.rs"]
mod tests;
