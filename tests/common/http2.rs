//! HTTP/2 by hand, for clients that use its flow control against us.

use std::{net::SocketAddr, time::Instant};

use super::wire::{PATIENCE, Wire};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const INITIAL_WINDOW_SIZE: [u8; 2] = [0, 4];

/// A client's connection with prior knowledge.
pub struct Http2 {
    wire: Wire,
    began: Instant,
}

/// A frame as it came.
pub struct Frame {
    pub kind: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
    /// Whether its stream ends with it.
    pub ends: bool,
}

impl Http2 {
    /// A connection whose streams may each be sent `window` bytes.
    pub fn connect(address: SocketAddr, window: u32) -> Self {
        Self::open(address, [PREFACE, &settings(window)].concat())
    }

    /// The same, and its first request, on stream 1, comes with the first bytes.
    pub fn connect_and_get(address: SocketAddr, window: u32, path: &str) -> Self {
        Self::open(address, [PREFACE, &settings(window), &request(1, path)].concat())
    }

    fn open(address: SocketAddr, bytes: Vec<u8>) -> Self {
        let mut wire = Wire::connect(address);
        wire.write(bytes);
        Self { wire, began: Instant::now() }
    }

    pub fn set_window(&mut self, window: u32) {
        self.wire.write(settings(window));
    }

    /// Lets a stream, or for 0 the connection, be sent so much more.
    pub fn allow(&mut self, stream: u32, bytes: u32) {
        self.wire.write(frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes()));
    }

    pub fn get(&mut self, stream: u32, path: &str) {
        self.wire.write(request(stream, path));
    }

    /// The next frame that is about a stream; what is about the connection is answered.
    pub fn frame(&mut self) -> Frame {
        self.try_frame().expect("the connection ended")
    }

    /// The same; `None` if the connection ends first.
    pub fn try_frame(&mut self) -> Option<Frame> {
        loop {
            assert!(self.began.elapsed() < PATIENCE, "what must come did not");
            let head = self.wire.try_exactly(9)?;
            let payload =
                self.wire.try_exactly(u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize)?;
            let (kind, flags) = (head[3], head[4]);
            let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
            if [SETTINGS, PING].contains(&kind) && flags & ACK == 0 {
                let same = if kind == PING { &payload[..] } else { &[] };
                self.wire.write(frame(kind, ACK, 0, same));
            }
            if stream > 0 {
                let ends = flags & END_STREAM > 0 && [DATA, HEADERS].contains(&kind);
                return Some(Frame { kind, stream, payload, ends });
            }
        }
    }
}

fn settings(window: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&INITIAL_WINDOW_SIZE[..], &window.to_be_bytes()].concat())
}

fn request(stream: u32, path: &str) -> Vec<u8> {
    let head = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", path)];
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &literals(&head))
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Headers that no table knows (RFC 7541, section 6.2.2).
fn literals(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(0);
        for text in [name, value] {
            block.push(text.len() as u8);
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}
