//! Watches the framing of HTTP/1 requests, to see what hyper resolves in silence.
//!
//! A request with both `content-length` and `transfer-encoding` may be two requests to somebody else on the
//! way (RFC 9112, section 6.3). hyper reads it as chunked, hides the length and ends the connection after it;
//! we refuse it. The watcher only ever says "this request is ambiguous"; what a request *is* stays hyper's
//! business, so a watcher that lost track can do no harm: it stops.

use std::{
    mem::{self, MaybeUninit},
    sync::atomic::{AtomicU64, Ordering},
};

use http::header;
use httparse::Status;

/// The largest head that is watched; larger ones are refused by hyper.
pub(crate) const MAX_HEAD: usize = 32 * 1024;
/// The most headers of a head.
pub(crate) const MAX_HEADERS: usize = 100;
/// The longest line of a chunk size or a trailer.
const MAX_LINE: usize = 16 * 1024;

/// Which request of a connection is ambiguous, if one is: 1 is the first.
#[derive(Default)]
pub(crate) struct Ambiguous(AtomicU64);

impl Ambiguous {
    /// Whether the connection's request of this number is.
    pub(crate) fn is(&self, number: u64) -> bool {
        self.0.load(Ordering::Acquire) == number
    }
}

/// Follows the bytes of a connection from request to request.
pub(crate) struct Watcher {
    state: State,
    requests: u64,
}

enum State {
    /// Collecting a head.
    Head(Vec<u8>),
    /// Passing over bytes of a body, then on to the next state.
    Skip(u64, After),
    /// Collecting the line of a chunk size.
    Size(Vec<u8>),
    /// Collecting a line of the trailers.
    Trailer(Vec<u8>),
    /// Nothing more to see.
    Lost,
}

#[derive(Clone, Copy)]
enum After {
    Head,
    /// The line end of a chunk.
    Size,
}

enum Length {
    Known(u64),
    Chunked,
    Both,
}

impl Watcher {
    pub(crate) fn new() -> Self {
        Self { state: State::Head(Vec::new()), requests: 0 }
    }

    /// Takes the next bytes of the connection.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], ambiguous: &Ambiguous) {
        while !bytes.is_empty() {
            let (state, taken) = match mem::replace(&mut self.state, State::Lost) {
                State::Head(head) => self.head(head, bytes, ambiguous),
                State::Skip(left, after) => skip(left, after, bytes),
                State::Size(line) => with_line(line, bytes, State::Size, size),
                State::Trailer(line) => with_line(line, bytes, State::Trailer, trailer),
                State::Lost => return,
            };
            self.state = state;
            bytes = &bytes[taken..];
        }
    }

    /// Whether a head has begun and is not whole.
    pub(crate) fn is_in_head(&self) -> bool {
        matches!(&self.state, State::Head(head) if !head.is_empty())
    }

    fn head(&mut self, mut head: Vec<u8>, bytes: &[u8], ambiguous: &Ambiguous) -> (State, usize) {
        let before = head.len();
        let more = &bytes[..bytes.len().min(MAX_HEAD + 1 - before)];
        // A head can only be whole where a line ends; looking for one first keeps a dripped head linear.
        let line_ends = memchr::memchr(b'\n', more).is_some();
        let parsed = match (line_ends, before) {
            (false, _) => Ok(Status::Partial),
            // As a rule a head comes whole, and need not be copied.
            (true, 0) => self.parse(more, ambiguous),
            (true, _) => {
                head.extend_from_slice(more);
                self.parse(&head, ambiguous)
            }
        };
        match parsed {
            Ok(Status::Complete((state, end))) => (state, end - before),
            Ok(Status::Partial) if before + more.len() <= MAX_HEAD => {
                head.extend_from_slice(&more[head.len() - before..]);
                (State::Head(head), bytes.len())
            }
            _ => (State::Lost, bytes.len()),
        }
    }

    /// What comes after a head, and where it ends, if it is whole.
    fn parse(&mut self, head: &[u8], ambiguous: &Ambiguous) -> httparse::Result<(State, usize)> {
        let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut []);
        Ok(match request.parse_with_uninit_headers(head, &mut headers)? {
            Status::Complete(end) => {
                self.requests += 1;
                Status::Complete((self.body(&request, ambiguous), end))
            }
            Status::Partial => Status::Partial,
        })
    }

    fn body(&self, request: &httparse::Request<'_, '_>, ambiguous: &Ambiguous) -> State {
        match length(request.headers) {
            Some(Length::Known(0)) => State::Head(Vec::new()),
            Some(Length::Known(length)) => State::Skip(length, After::Head),
            Some(Length::Chunked) => State::Size(Vec::new()),
            Some(Length::Both) => {
                ambiguous.0.store(self.requests, Ordering::Release);
                State::Lost
            }
            None => State::Lost,
        }
    }
}

/// How long a body is; `None` if hyper refuses the head.
fn length(headers: &[httparse::Header<'_>]) -> Option<Length> {
    let mut known = None;
    let mut chunked = false;
    for found in headers.iter() {
        if header::CONTENT_LENGTH.as_str().eq_ignore_ascii_case(found.name) {
            known = Some(std::str::from_utf8(found.value).ok()?.trim().parse().ok()?);
        }
        chunked |= header::TRANSFER_ENCODING.as_str().eq_ignore_ascii_case(found.name);
    }
    Some(match (known, chunked) {
        (Some(_), true) => Length::Both,
        (None, true) => Length::Chunked,
        (known, false) => Length::Known(known.unwrap_or(0)),
    })
}

fn skip(left: u64, after: After, bytes: &[u8]) -> (State, usize) {
    let taken = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
    let state = match (left - taken as u64, after) {
        (0, After::Head) => State::Head(Vec::new()),
        (0, After::Size) => State::Size(Vec::new()),
        (left, after) => State::Skip(left, after),
    };
    (state, taken)
}

/// Collects a line; once it is whole, goes where it says.
fn with_line(
    mut line: Vec<u8>,
    bytes: &[u8],
    more: fn(Vec<u8>) -> State,
    whole: fn(&[u8]) -> State,
) -> (State, usize) {
    let end = memchr::memchr(b'\n', bytes);
    let taken = end.map_or(bytes.len(), |at| at + 1);
    line.extend_from_slice(&bytes[..end.unwrap_or(taken)]);
    if line.len() > MAX_LINE {
        return (State::Lost, taken);
    }
    match end {
        Some(_) => (whole(line.strip_suffix(b"\r").unwrap_or(&line)), taken),
        None => (more(line), taken),
    }
}

fn size(line: &[u8]) -> State {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
    let text = std::str::from_utf8(digits).unwrap_or_default().trim();
    match u64::from_str_radix(text, 16) {
        Ok(0) => State::Trailer(Vec::new()),
        // The chunk and the line end after it.
        Ok(size) if size < u64::MAX - 2 => State::Skip(size + 2, After::Size),
        _ => State::Lost,
    }
}

fn trailer(line: &[u8]) -> State {
    if line.is_empty() { State::Head(Vec::new()) } else { State::Trailer(Vec::new()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &str =
        "POST /c HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    const LENGTH: &str = "POST /a HTTP/1.1\r\nhost: a\r\nContent-Length: 7\r\n\r\na\r\n\r\nbc";
    const CHUNKED: &str = "POST /b HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
        5;x=y\r\nhello\r\nA\r\n0123456789\r\n0\r\nx-trailer: 1\r\n\r\n";

    /// Which request of a stream is ambiguous, with the stream cut in pieces of a size.
    fn ambiguous(stream: &str, piece: usize) -> u64 {
        let verdict = Ambiguous::default();
        let mut watcher = Watcher::new();
        for bytes in stream.as_bytes().chunks(piece) {
            watcher.feed(bytes, &verdict);
        }
        verdict.0.into_inner()
    }

    #[test]
    fn two_lengths_are_seen_behind_other_requests_and_in_any_pieces() {
        let stream = format!("GET / HTTP/1.1\r\nhost: a\r\n\r\n{LENGTH}{CHUNKED}{BOTH}");
        for piece in 1..=stream.len() {
            assert_eq!(ambiguous(&stream, piece), 4, "in pieces of {piece} bytes");
        }
    }

    #[test]
    fn the_order_of_the_two_does_not_matter() {
        let other = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n";
        assert_eq!(ambiguous(other, 7), 1);
    }

    #[test]
    fn a_request_in_a_body_is_no_request() {
        let stream = format!("POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{BOTH}", BOTH.len());
        assert_eq!(ambiguous(&stream, 16), 0);
        let chunk = format!(
            "POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{BOTH}\r\n0\r\n\r\n{BOTH}",
            BOTH.len()
        );
        assert_eq!(ambiguous(&chunk, 16), 2);
    }
}
