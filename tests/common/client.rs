//! A raw HTTP/1.1 client: it sends exactly the bytes that a test gives, and tells a clean end from a cut.

use std::{io, net::SocketAddr};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::wait::{LIMIT, within};

/// A request that is not sent yet.
#[derive(Clone)]
pub struct Post {
    method: &'static str,
    path: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    framing: Framing,
}

#[derive(Clone, Copy, PartialEq)]
enum Framing {
    Length,
    Chunked,
    None,
}

/// How a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// As its framing says it must.
    Clean,
    /// The connection closed first.
    Cut,
}

/// A whole response.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub end: End,
}

/// A response of which the head was read. Dropping it closes the connection.
pub struct Exchange {
    socket: TcpStream,
    raw: Vec<u8>,
    status: u16,
    headers: Vec<(String, String)>,
    left: Left,
    body: Vec<u8>,
}

/// What of the body is still to come.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Left {
    Length(usize),
    /// Before a chunk's size line.
    Chunk,
    /// Inside a chunk: its bytes and the line end after them.
    InChunk(usize),
    /// Until the connection closes.
    Close,
    Done,
    Cut,
}

impl Post {
    /// A chat completion with this body, of no session.
    pub fn chat(body: impl Into<Vec<u8>>) -> Self {
        Self::to("/v1/chat/completions", body).header("content-type", "application/json")
    }

    /// A POST to any path.
    pub fn to(path: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            method: "POST",
            path: path.to_owned(),
            headers: Vec::new(),
            body: body.into(),
            framing: Framing::Length,
        }
    }

    /// A GET.
    pub fn get(path: &str) -> Self {
        Self { method: "GET", framing: Framing::None, ..Self::to(path, "") }
    }

    pub fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    pub fn session(self, id: &str) -> Self {
        self.header("x-session-id", id)
    }

    /// `session-memory: read` and the like.
    pub fn control(self, value: &str) -> Self {
        self.header("session-memory", value)
    }

    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// Sends the body chunked, without a length.
    pub fn chunked(self) -> Self {
        Self { framing: Framing::Chunked, ..self }
    }

    /// The head as it goes out.
    pub fn head(&self) -> Vec<u8> {
        let mut out = format!("{} {} HTTP/1.1\r\nhost: localhost\r\n", self.method, self.path).into_bytes();
        for (name, value) in &self.headers {
            out.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        match self.framing {
            Framing::Length => out.extend(format!("content-length: {}\r\n", self.body.len()).bytes()),
            Framing::Chunked => out.extend(b"transfer-encoding: chunked\r\n"),
            Framing::None => {}
        }
        out.extend(b"\r\n");
        out
    }

    /// The body as it goes out; chunked bodies in pieces of 1,000 bytes.
    pub fn framed_body(&self) -> Vec<u8> {
        if self.framing != Framing::Chunked {
            return self.body.clone();
        }
        let mut out = Vec::new();
        for piece in self.body.chunks(1_000) {
            out.extend(format!("{:x}\r\n", piece.len()).bytes());
            out.extend(piece);
            out.extend(b"\r\n");
        }
        out.extend(b"0\r\n\r\n");
        out
    }

    /// The request as it goes out.
    pub fn bytes(&self) -> Vec<u8> {
        [self.head(), self.framed_body()].concat()
    }

    /// Sends it; an error when no whole head came back.
    pub async fn try_send(&self, addr: SocketAddr) -> io::Result<Answer> {
        Exchange::start(addr, &self.bytes()).await?.finish().await
    }
}

impl Exchange {
    /// Connects, sends these bytes, reads the head of the answer.
    pub async fn start(addr: SocketAddr, bytes: &[u8]) -> io::Result<Self> {
        let mut socket = TcpStream::connect(addr).await?;
        socket.set_nodelay(true)?;
        // A server may answer and close before it has read everything; the answer is what counts.
        let written = socket.write_all(bytes).await;
        match Self::read(socket).await {
            Ok(exchange) => Ok(exchange),
            Err(error) => Err(written.err().unwrap_or(error)),
        }
    }

    /// Reads the head of an answer; informational answers before it are passed over.
    pub async fn read(socket: TcpStream) -> io::Result<Self> {
        let mut this =
            Self { socket, raw: vec![], status: 0, headers: vec![], left: Left::Close, body: vec![] };
        loop {
            let head = this.line_block().await?;
            let mut lines = head.split("\r\n");
            let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|s| s.parse().ok());
            this.status = status.ok_or_else(|| io::Error::other("no status line"))?;
            this.headers = lines
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
                .collect();
            if this.status >= 200 {
                break;
            }
        }
        this.left = if this.header("transfer-encoding") == Some("chunked") {
            Left::Chunk
        } else if let Some(length) = this.header("content-length") {
            Left::Length(length.parse().map_err(io::Error::other)?)
        } else {
            Left::Close
        };
        Ok(this)
    }

    pub fn status(&self) -> u16 {
        self.status
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// What has been read of the body.
    pub fn body_text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Reads on until the body holds this text.
    pub async fn read_until(&mut self, needle: &str) -> &mut Self {
        let found = self.reads(needle).await.expect("the body can be read");
        assert!(found, "it ended before {needle:?}: {}", self.body_text());
        self
    }

    /// Reads on until the body holds this text; false if it ends before.
    pub async fn reads(&mut self, needle: &str) -> io::Result<bool> {
        let mut more = true;
        while !self.body_text().contains(needle) {
            if !more {
                return Ok(false);
            }
            more = self.step().await?;
        }
        Ok(true)
    }

    /// What was read. Nothing more is: the connection closes.
    pub fn so_far(self) -> Answer {
        let end = if self.left == Left::Done { End::Clean } else { End::Cut };
        Answer { status: self.status, headers: self.headers, body: self.body, end }
    }

    /// Reads the rest.
    pub async fn finish(mut self) -> io::Result<Answer> {
        while self.step().await? {}
        Ok(self.so_far())
    }

    /// Takes one step in the body; false at its end.
    async fn step(&mut self) -> io::Result<bool> {
        if let Some(left) = self.parse()? {
            self.left = left;
        } else if !self.fill().await? {
            self.left = if self.left == Left::Close { Left::Done } else { Left::Cut };
        }
        Ok(!matches!(self.left, Left::Done | Left::Cut))
    }

    /// What is left after the bytes that are there; `None` when there are not enough.
    fn parse(&mut self) -> io::Result<Option<Left>> {
        Ok(match self.left {
            Left::Length(0) => Some(Left::Done),
            Left::Done | Left::Cut => Some(self.left),
            Left::InChunk(0) if self.raw.len() >= 2 => {
                self.raw.drain(..2);
                Some(Left::Chunk)
            }
            Left::Chunk => self.chunk_size()?,
            _ if self.raw.is_empty() => None,
            Left::Length(n) => Some(Left::Length(n - self.take(n))),
            Left::InChunk(n) if n > 0 => Some(Left::InChunk(n - self.take(n))),
            Left::InChunk(_) => None,
            Left::Close => {
                self.take(usize::MAX);
                Some(Left::Close)
            }
        })
    }

    fn chunk_size(&mut self) -> io::Result<Option<Left>> {
        let Some(at) = position(&self.raw, b"\r\n") else { return Ok(None) };
        let line = String::from_utf8_lossy(&self.raw[..at]).into_owned();
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(io::Error::other)?;
        if size > 0 {
            self.raw.drain(..at + 2);
            return Ok(Some(Left::InChunk(size)));
        }
        // The last chunk, perhaps trailers, and an empty line.
        Ok(position(&self.raw[at..], b"\r\n\r\n").map(|_| Left::Done))
    }

    /// Moves up to `most` raw bytes into the body.
    fn take(&mut self, most: usize) -> usize {
        let count = most.min(self.raw.len());
        self.body.extend(self.raw.drain(..count));
        count
    }

    /// Reads from the socket; false when it has closed. A reset is a close.
    async fn fill(&mut self) -> io::Result<bool> {
        let read = tokio::time::timeout(LIMIT, self.socket.read_buf(&mut self.raw)).await;
        match read.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))? {
            Ok(count) => Ok(count > 0),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The bytes up to an empty line, without it.
    async fn line_block(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = position(&self.raw, b"\r\n\r\n") {
                let block = self.raw.drain(..at + 4).take(at).collect::<Vec<_>>();
                return Ok(String::from_utf8_lossy(&block).into_owned());
            }
            if !self.fill().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    /// What the assistant said: from JSON, or joined from the deltas.
    pub fn said(&self) -> String {
        if let Ok(whole) = serde_json::from_slice::<Value>(&self.body) {
            return whole["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned();
        }
        let events = self.text();
        let chunks = events.lines().filter_map(|line| line.strip_prefix("data: "));
        let values = chunks.filter_map(|data| serde_json::from_str::<Value>(data).ok());
        values.filter_map(|v| v["choices"][0]["delta"]["content"].as_str().map(str::to_owned)).collect()
    }

    /// The first item of the `session-memory` header: `hit`, `new`, `bypass` or `degraded`.
    pub fn outcome(&self) -> &str {
        self.header("session-memory").and_then(|value| value.split(';').next()).unwrap_or("none")
    }

    /// A parameter of the `session-memory` header.
    pub fn told(&self, parameter: &str) -> &str {
        let value = self.header("session-memory").unwrap_or_default();
        let pairs = value.split(';').skip(1).filter_map(|pair| pair.trim().split_once('='));
        pairs.into_iter().find(|(name, _)| *name == parameter).map_or("none", |(_, value)| value)
    }

    /// `error.code` of one of our own errors.
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or("none").to_owned()
    }

    /// Fails unless this is a whole 200.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!((self.status, self.end), (200, End::Clean), "{}", self.text());
        self
    }
}

/// Reads the head of an answer within the limit.
pub async fn answer_on(socket: TcpStream) -> Exchange {
    within("an answer", Exchange::read(socket)).await.expect("an answer")
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
}

fn position(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
