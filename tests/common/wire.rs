//! HTTP/1.1 by hand: what a test writes is what goes over the wire, and what came is what it reads.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

/// Time after which a peer that hangs fails a test; nothing is asserted about how long anything takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// An upstream whose every connection is a function's.
pub struct Upstream {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Upstream {
    /// Serves every connection with `serve`, in a thread of its own.
    pub fn start(serve: impl Fn(&mut Wire) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (serve, count) = (Arc::new(serve), Arc::clone(&connections));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                count.fetch_add(1, Ordering::SeqCst);
                let serve = Arc::clone(&serve);
                std::thread::spawn(move || serve(&mut Wire::new(stream)));
            }
        });
        Self { address, connections }
    }

    /// Answers every request with one reply, and hands out the requests.
    pub fn answering(reply: impl Into<Vec<u8>>) -> (Self, mpsc::Receiver<Message>) {
        let (sender, requests) = mpsc::channel();
        let reply = reply.into();
        let upstream = Self::start(move |wire| {
            while let Some(request) = wire.try_message() {
                let _ = sender.send(request);
                wire.write(&reply);
            }
        });
        (upstream, requests)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many connections were made to it.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// A message as it came.
#[derive(Debug, Clone)]
pub struct Message {
    /// The first line and the headers, without the empty line.
    pub head: String,
    /// The body, with the chunks joined.
    pub body: Vec<u8>,
    /// The trailers.
    pub trailers: String,
}

impl Message {
    /// The values of a header, in lower case names.
    pub fn header(&self, name: &str) -> Vec<&str> {
        self.head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .filter(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .collect()
    }

    pub fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The `code` of an error of ours.
    pub fn code(&self) -> String {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        body["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// One side of a connection.
pub struct Wire {
    pub stream: TcpStream,
    read: Vec<u8>,
}

impl Wire {
    pub fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, read: Vec::new() }
    }

    pub fn connect(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect(address).unwrap())
    }

    /// Writes; a peer that is gone is for the test to notice when it reads.
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// The end of what this side says.
    pub fn finish(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Number of bytes that have come and are not consumed yet.
    pub fn buffered(&self) -> usize {
        self.read.len()
    }

    /// Sends a request and reads its answer.
    pub fn exchange(&mut self, request: impl AsRef<[u8]>) -> Message {
        self.write(request);
        self.message()
    }

    /// Reads up to and with `end`; `None` if the connection ends first.
    pub fn try_until(&mut self, end: &str) -> Option<String> {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|window| window == end.as_bytes()) {
                let rest = self.read.split_off(at + end.len());
                return Some(String::from_utf8(std::mem::replace(&mut self.read, rest)).unwrap());
            }
            if self.more() == 0 {
                return None;
            }
        }
    }

    pub fn until(&mut self, end: &str) -> String {
        self.try_until(end).unwrap_or_else(|| panic!("the connection ended before {end:?}"))
    }

    /// All that comes until the connection ends.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.more() > 0 {}
        std::mem::take(&mut self.read)
    }

    /// One message; `None` if the connection ends before it begins.
    pub fn try_message(&mut self) -> Option<Message> {
        let head = self.try_until("\r\n\r\n")?;
        let mut message = Message { head, body: Vec::new(), trailers: String::new() };
        if message.header("transfer-encoding") == ["chunked"] {
            self.chunks(&mut message);
        } else if let Some(length) = message.header("content-length").first() {
            message.body = self.exactly(length.parse().unwrap());
        }
        Some(message)
    }

    pub fn message(&mut self) -> Message {
        self.try_message().expect("the connection ended and there was no message")
    }

    /// The next `length` bytes.
    pub fn exactly(&mut self, length: usize) -> Vec<u8> {
        self.try_exactly(length).expect("the connection ended within a body")
    }

    /// The next `length` bytes; `None` if the connection ends first.
    pub fn try_exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.read.len() < length {
            if self.more() == 0 {
                return None;
            }
        }
        let rest = self.read.split_off(length);
        Some(std::mem::replace(&mut self.read, rest))
    }

    fn chunks(&mut self, message: &mut Message) {
        loop {
            let line = self.until("\r\n");
            let size = usize::from_str_radix(line.trim(), 16).unwrap();
            if size == 0 {
                break;
            }
            message.body.extend(self.exactly(size));
            self.until("\r\n");
        }
        loop {
            let line = self.until("\r\n");
            if line == "\r\n" {
                return;
            }
            message.trailers += &line;
        }
    }

    /// Reads more; 0 when the connection has ended, however it ended.
    fn more(&mut self) -> usize {
        let mut buffer = [0; 64 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(read) => {
                self.read.extend_from_slice(&buffer[..read]);
                read
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("the peer hangs"),
            Err(_) => 0,
        }
    }
}

/// Sends a request on a connection of its own and reads one answer.
pub fn ask(address: SocketAddr, request: impl AsRef<[u8]>) -> Message {
    let mut wire = Wire::connect(address);
    wire.write(request);
    wire.message()
}
