//! A client and an upstream that take turns, so that a proxy between them is asked one thing at a time: an event of
//! a stream is sent when the client has the one before.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use crate::error::BoxError;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of text in each message.
const TEXT: usize = 200;

/// What the upstream answers.
#[derive(Clone, Copy)]
pub(crate) enum Reply {
    Json,
    /// A stream: this number of events with text, then its end.
    Stream(usize),
}

/// Whose turns a request continues.
#[derive(Clone, Copy)]
pub(crate) enum Session {
    /// None: the client sends this many turns itself.
    None(usize),
    /// A new session for each request.
    New,
    /// One session, with this number of turns before the first request that is counted.
    Grown(usize),
}

/// A client, and the upstream that answers it.
pub(crate) struct Conversation {
    upstream: Upstream,
    reply: Reply,
}

impl Conversation {
    pub(crate) fn new(reply: Reply) -> Result<Self, BoxError> {
        Ok(Self { upstream: Upstream::start(reply)?, reply })
    }

    /// Where the upstream listens.
    pub(crate) fn upstream(&self) -> SocketAddr {
        self.upstream.address
    }

    /// # Errors
    ///
    /// When a reply is not the upstream's, or the upstream was not sent the whole conversation.
    pub(crate) fn hold(&self, proxy: SocketAddr, session: Session, requests: usize) -> Result<(), BoxError> {
        let mut client = TcpStream::connect(proxy)?;
        client.set_nodelay(true)?;
        client.set_read_timeout(Some(PATIENCE))?;
        let before = if let Session::Grown(turns) = session { turns } else { 0 };
        for number in 0..before + requests {
            let (name, turns, seen) = match session {
                Session::None(turns) => (None, turns, 2 * turns + 1),
                Session::New => (Some(number), 0, 1),
                Session::Grown(_) => (Some(0), 0, 2 * number + 1),
            };
            client.write_all(request(name, turns).as_bytes())?;
            self.read_reply(&mut client)?;
            let arrived = self.upstream.seen.recv_timeout(PATIENCE)?;
            if arrived != seen {
                return Err(format!("the upstream was sent {arrived} messages, not {seen}").into());
            }
        }
        Ok(())
    }

    /// Reads one reply to its end, and lets the upstream go on after each event.
    fn read_reply(&self, client: &mut TcpStream) -> Result<(), BoxError> {
        let mut reply = Vec::new();
        let mut passed = 0;
        let mut piece = [0; 64 << 10];
        loop {
            let read = client.read(&mut piece)?;
            reply.extend_from_slice(&piece[..read]);
            let Some(body) = find(&reply, b"\r\n\r\n").map(|head| head + 4) else { continue };
            if read == 0 || !reply.starts_with(b"HTTP/1.1 200 ") {
                return Err(format!("no reply but {}", String::from_utf8_lossy(&reply)).into());
            }
            match self.reply {
                Reply::Json if reply.ends_with(JSON_END.as_bytes()) => return Ok(()),
                Reply::Stream(_) if reply.ends_with(b"\r\n0\r\n\r\n") => return Ok(()),
                Reply::Json => {}
                Reply::Stream(events) => {
                    let whole = reply[body..].windows(2).filter(|pair| pair == b"\n\n").count();
                    // Nothing follows the end: a permit too many would let the next stream run ahead.
                    let whole = whole.min(events + 1);
                    (passed..whole).try_for_each(|_| self.upstream.next.send(()))?;
                    passed = whole;
                }
            }
        }
    }
}

fn request(session: Option<usize>, turns: usize) -> String {
    let text = "x".repeat(TEXT);
    let user = format!(r#"{{"role":"user","content":"{text}"}}"#);
    let turn = format!(r#"{user},{{"role":"assistant","content":"{text}"}},"#);
    let body = format!(r#"{{"model":"bench","messages":[{}{user}]}}"#, turn.repeat(turns));
    let session = session.map(|number| format!("x-session-id: session-{number:06}\r\n")).unwrap_or_default();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer sk-bench-0123456789abcdef\r\n\
         content-type: application/json\r\n{session}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Answers every request alike, and tells how many messages it had.
struct Upstream {
    address: SocketAddr,
    seen: Receiver<usize>,
    /// Lets the next event of a stream go.
    next: Sender<()>,
}

impl Upstream {
    /// Its threads end with the connections, and that of the listener with this process.
    fn start(reply: Reply) -> Result<Self, BoxError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let ((told, seen), (next, permits)) = (channel(), channel());
        let permits = Arc::new(Mutex::new(permits));
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (told, permits) = (told.clone(), Arc::clone(&permits));
                thread::spawn(move || serve(connection, reply, &told, &permits));
            }
        });
        Ok(Self { address, seen, next })
    }
}

/// Serves a connection until it ends, or its client is gone.
fn serve(
    mut connection: TcpStream,
    reply: Reply,
    told: &Sender<usize>,
    permits: &Mutex<Receiver<()>>,
) -> Option<()> {
    connection.set_nodelay(true).ok()?;
    let pieces = match reply {
        Reply::Json => vec![json()],
        Reply::Stream(events) => stream(events),
    };
    loop {
        let body = read_request(&mut connection)?;
        told.send(body.windows(6).filter(|word| word == b"\"role\"").count()).ok()?;
        for (place, piece) in pieces.iter().enumerate() {
            if place > 0 {
                permits.lock().ok()?.recv().ok()?;
            }
            connection.write_all(piece.as_bytes()).ok()?;
        }
    }
}

/// The body of the next request.
fn read_request(connection: &mut TcpStream) -> Option<Vec<u8>> {
    let mut request = Vec::new();
    let mut piece = [0; 64 << 10];
    loop {
        if let Some(head) = find(&request, b"\r\n\r\n").map(|head| head + 4) {
            let fields = String::from_utf8_lossy(&request[..head]).to_ascii_lowercase();
            let length = fields.lines().find_map(|line| line.strip_prefix("content-length:"))?;
            if request.len() - head >= length.trim().parse().ok()? {
                return Some(request.split_off(head));
            }
        }
        let read = connection.read(&mut piece).ok()?;
        if read == 0 {
            return None;
        }
        request.extend_from_slice(&piece[..read]);
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

const JSON_END: &str = r#""total_tokens":29},"service_tier":"default"}"#;

fn json() -> String {
    let text = "y".repeat(TEXT);
    let body = format!(
        r#"{{"id":"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT","object":"chat.completion","created":1763800000,"model":"gpt-5-2026-01-01","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}","refusal":null,"annotations":[]}},"logprobs":null,"finish_reason":"stop"}}],"usage":{{"prompt_tokens":19,"completion_tokens":10,{JSON_END}"#
    );
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The head with the first event, each further event, and the last of them with the end.
fn stream(words: usize) -> Vec<String> {
    let chunk = |event: String| format!("{:x}\r\n{event}\r\n", event.len());
    let event = |delta: &str, finish: &str| {
        let event = format!(
            r#"data: {{"id":"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT","object":"chat.completion.chunk","created":1763800000,"model":"gpt-5-2026-01-01","service_tier":"default","system_fingerprint":"fp_7eeb46f068","choices":[{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish}}}],"usage":null}}"#
        );
        chunk(event + "\n\n")
    };
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let first = head.to_owned() + &event(r#"{"role":"assistant","content":""}"#, "null");
    let words = (0..words).map(|_| event(r#"{"content":" word"}"#, "null"));
    let end = event("{}", r#""stop""#) + &chunk("data: [DONE]\n\n".to_owned()) + "0\r\n\r\n";
    std::iter::once(first).chain(words).chain([end]).collect()
}
