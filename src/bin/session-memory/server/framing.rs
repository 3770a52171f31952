//! Watches the framing of HTTP/1 requests, to find those that hyper accepts in silence.
//!
//! * What it is for: a request with both `content-length` and `transfer-encoding` may be two requests to another
//!   server on the way (RFC 9112, section 6.3). The gate refuses it with 400.
//! * Without it: hyper reads such a request as chunked, removes the length before any code of ours sees it, and ends
//!   the connection after its reply. No extension or option of hyper 1.12 shows that there was a length.
//! * What holds it: `tests/proxy/hostile.rs`, and below a property that the watcher and hyper's server count the
//!   same requests, in pieces of any size.
//!
//! The watcher only marks a request as ambiguous; all else about a request is decided by hyper. A watcher that cannot
//! follow stops, and marks nothing. Its second answer, whether a head has begun, bounds the time of slow heads.

use std::{
    mem::{self, MaybeUninit},
    sync::atomic::{AtomicU64, Ordering},
};

use http::header;
use httparse::Status;

/// The largest head, in bytes; hyper refuses larger ones.
pub(crate) const MAX_HEAD: usize = 32 * 1024;
/// The largest number of headers; hyper refuses more.
pub(crate) const MAX_HEADERS: usize = 100;
/// The longest line of a chunk size or a trailer, in bytes.
const MAX_LINE: usize = 16 * 1024;

/// Number of the ambiguous request of a connection; 1 is the first request, 0 means none.
#[derive(Default)]
pub(crate) struct AmbiguousRequest(AtomicU64);

impl AmbiguousRequest {
    /// Whether the connection's request of this number is ambiguous.
    pub(crate) fn is(&self, number: u64) -> bool {
        self.0.load(Ordering::Acquire) == number
    }
}

/// Follows the bytes of a connection from request to request.
pub(crate) struct FramingWatcher {
    state: State,
    requests: u64,
}

enum State {
    /// Collecting a head.
    Head(Vec<u8>),
    /// Skipping bytes of a body, then on to the next state.
    Skip(u64, After),
    /// Collecting the line of a chunk size.
    Size(Vec<u8>),
    /// Collecting a line of the trailers.
    Trailer(Vec<u8>),
    /// Unable to follow; nothing more is read.
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

impl FramingWatcher {
    pub(crate) fn new() -> Self {
        Self { state: State::Head(Vec::new()), requests: 0 }
    }

    /// Takes the next bytes of the connection.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], ambiguous: &AmbiguousRequest) {
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

    fn head(&mut self, mut head: Vec<u8>, bytes: &[u8], ambiguous: &AmbiguousRequest) -> (State, usize) {
        let before = head.len();
        let more = &bytes[..bytes.len().min(MAX_HEAD + 1 - before)];
        // A head can only be whole where a line ends; looking for one first keeps a dripped head linear.
        let line_ends = memchr::memchr(b'\n', more).is_some();
        let parsed = match (line_ends, before) {
            (false, _) => Ok(Status::Partial),
            // A head that comes in one piece is not copied.
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

    /// The state after a complete head, and the offset of its end.
    fn parse(&mut self, head: &[u8], ambiguous: &AmbiguousRequest) -> httparse::Result<(State, usize)> {
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

    fn body(&self, request: &httparse::Request<'_, '_>, ambiguous: &AmbiguousRequest) -> State {
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

/// The length of a body; `None` if hyper refuses the head.
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

/// Collects a line; a complete line decides the next state.
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
    #![allow(clippy::unwrap_used)]

    use std::{cell::Cell, convert::Infallible};

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::{BodyExt, Empty};
    use hyper::{body::Incoming, server::conn::http1, service::service_fn};
    use hyper_util::rt::TokioIo;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const BOTH: &str =
        "POST /c HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    const LENGTH: &str = "POST /a HTTP/1.1\r\nhost: a\r\nContent-Length: 7\r\n\r\na\r\n\r\nbc";
    const CHUNKED: &str = "POST /b HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
        5;x=y\r\nhello\r\nA\r\n0123456789\r\n0\r\nx-trailer: 1\r\n\r\n";

    /// The number of the ambiguous request, with the stream cut into pieces of `piece` bytes.
    fn ambiguous(stream: &str, piece: usize) -> u64 {
        let verdict = AmbiguousRequest::default();
        let mut watcher = FramingWatcher::new();
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

    fn any_request() -> impl Strategy<Value = String> {
        let body = prop_oneof![Just(String::new()), Just(BOTH.to_owned()), "[a-c\r\n]{0,12}"];
        let chunks = prop::collection::vec(prop_oneof![Just(BOTH.to_owned()), "[a-c\r\n]{1,12}"], 0..3);
        prop_oneof![
            Just("GET /a HTTP/1.1\r\nhost: a\r\n\r\n".to_owned()),
            body.prop_map(|body| format!(
                "POST /b HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )),
            (chunks, prop_oneof![Just(""), Just(";x=y")], prop_oneof![Just(""), Just("x: 1\r\n")]).prop_map(
                |(chunks, extension, trailers)| {
                    let chunk = |chunk: &String| format!("{:X}{extension}\r\n{chunk}\r\n", chunk.len());
                    let chunks: String = chunks.iter().map(chunk).collect();
                    format!(
                        "POST /c HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                         {chunks}0\r\n{trailers}\r\n"
                    )
                }
            ),
        ]
    }

    /// The number of requests that hyper's server reads from a stream.
    async fn served_by_hyper(stream: String) -> u64 {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let served = Cell::new(0);
        let service = service_fn(async |request: Request<Incoming>| {
            served.set(served.get() + 1);
            let _ = request.into_body().collect().await;
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        });
        let ask = async {
            client.write_all(stream.as_bytes()).await.unwrap();
            client.shutdown().await.unwrap();
            client.read_to_end(&mut Vec::new()).await
        };
        let serve = http1::Builder::new().serve_connection(TokioIo::new(server), service);
        let _ = tokio::join!(ask, serve);
        served.get()
    }

    proptest! {
        #[test]
        fn the_watcher_and_hyper_count_the_same_requests(
            requests in prop::collection::vec(any_request(), 0..5),
            piece in 1_usize..80,
        ) {
            let stream = requests.concat() + BOTH;
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            // hyper ends the connection after the ambiguous request, so that is the last one that it reads.
            let served = runtime.block_on(served_by_hyper(stream.clone() + "GET / HTTP/1.1\r\nhost: a\r\n\r\n"));
            prop_assert_eq!(ambiguous(&stream, piece), served);
            prop_assert_eq!(served, requests.len() as u64 + 1);
        }
    }
}
