//! Clients that take their time: they keep no other client out, and a slow and steady one is served.

use std::{
    collections::BTreeSet,
    io::{ErrorKind, Read, Write},
    thread,
    time::{Duration, Instant},
};

use crate::common::{
    http2::{DATA, HEADERS, Http2, RST_STREAM},
    process::Proxy,
    wire::{Message, PATIENCE, Upstream, Wire},
};

const EVENT: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"word \"},\"finish_reason\":null}]}\n\n";
const REPLY: &str =
    r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}"#;

/// Larger than what sockets and windows take, and the length of a reply to `/large`.
const LARGE: usize = 64 << 20;

#[test]
fn a_client_that_stops_reading_has_left() {
    let upstream = talkative();
    let room = ["--max-requests", "1", "--max-buffered", "64 KiB", "--max-request-body", "64 KiB"];
    let slow = ["--max-reply", "1 GiB", "--send-timeout", "300ms", "--log", "session_memory=debug"];
    let proxy = Proxy::start(&upstream.url(), &[&room[..], &slow].concat());
    for (turn, path) in ["/v1/endless/chat/completions", "/large"].into_iter().enumerate() {
        let mut client = Wire::connect(proxy.address);
        client.write(chat(path, 40_000));
        client.until("\r\n\r\n");
        // Not the system's own limit, which is longer.
        proxy.wait_for_more("(send_timeout)", turn);
        assert_eq!(patient(&proxy, || chat("/v1/chat/completions", 40_001 + turn)).status(), 200);
    }
    let next = Wire::connect(proxy.address).exchange(chat("/v1/chat/completions", 10));
    let said = next.header("session-memory").concat();
    assert!(said.starts_with("hit;") && said.contains("turns=3"), "what the first was sent is kept: {said}");
}

#[test]
fn http2_clients_whose_windows_are_shut_have_left() {
    let upstream = talkative();
    let proxy = Proxy::start(&upstream.url(), &["--max-requests", "100", "--send-timeout", "300ms"]);
    for window in [0, 1] {
        let mut client = Http2::connect(proxy.address, window);
        let streams: BTreeSet<u32> = (0..100).map(|number| 2 * number + 1).collect();
        streams
            .iter()
            .collect::<std::collections::BTreeSet<_>>()
            .iter()
            .for_each(|stream| client.get(**stream, "/large"));
        let (mut answered, mut reset) = (BTreeSet::new(), BTreeSet::new());
        // With a byte of a frame on its way the reset has to wait for the rest of it.
        while answered != streams || window == 0 && reset != streams {
            let frame = client.frame();
            answered.extend((frame.kind == HEADERS).then_some(frame.stream));
            reset.extend((frame.kind == RST_STREAM).then_some(frame.stream));
        }
        assert_eq!(
            patient(&proxy, || get("/small")).status(),
            200,
            "window {window}: their places are not free"
        );
        if window > 0 {
            continue;
        }
        client.set_window(1000);
        client.get(201, "/small");
        let mut body = Vec::new();
        loop {
            let frame = client.frame();
            assert_eq!(frame.stream, 201);
            body.extend(Some(frame.payload).filter(|_| frame.kind == DATA).into_iter().flatten());
            if frame.ends {
                break;
            }
        }
        assert_eq!(body, REPLY.as_bytes(), "the connection is of no use any more");
    }
}

#[test]
fn an_http2_client_that_takes_little_by_little_gets_all_of_it() {
    let upstream = talkative();
    let proxy = Proxy::start(&upstream.url(), &["--send-timeout", "3s"]);
    steadily(|pace| {
        let mut client = Http2::connect(proxy.address, 0);
        client.get(1, "/small");
        let mut got = Vec::new();
        while got.len() < REPLY.len() {
            let frame = client.try_frame();
            pace.step();
            let Some(frame) = frame.filter(|frame| frame.kind != RST_STREAM) else { return false };
            if frame.kind == DATA {
                got.extend(frame.payload);
                thread::sleep(Duration::from_millis(50));
            }
            client.allow(1, 1);
            pace.step();
        }
        assert_eq!(got, REPLY.as_bytes());
        true
    });
}

#[test]
fn an_http2_connection_whose_client_takes_no_more_of_it_ends() {
    let upstream = talkative();
    let args = ["--keep-alive-timeout", "300ms", "--send-timeout", "300ms"];
    let proxy = Proxy::start(&upstream.url(), &args);
    // One byte goes out, and hyper is done with the stream. What the client says of the connection it still answers.
    let mut client = Http2::connect_and_get(proxy.address, 1, "/small");
    let mut frames = 0;
    while client.try_frame().is_some() {
        frames += 1;
    }
    assert!(frames >= 2, "the stream had not begun");
}

#[test]
fn a_client_that_reads_slowly_and_steadily_gets_all_of_it() {
    let upstream = talkative();
    let proxy = Proxy::start(&upstream.url(), &["--send-timeout", "3s"]);
    steadily(|pace| {
        let mut client = Wire::connect(proxy.address);
        client.write(get("/large"));
        client.until("\r\n\r\n");
        let (began, mut got) = (Instant::now(), client.buffered());
        let mut piece = vec![0; 128 * 1024];
        while got < LARGE {
            // Too little for the system to call the socket writable.
            let slowly = began.elapsed() < Duration::from_secs(5);
            if slowly {
                thread::sleep(Duration::from_millis(250));
            }
            let read = match slowly {
                true => client.stream.read_exact(&mut piece).map(|()| piece.len()),
                false => client.stream.read(&mut piece),
            };
            pace.step();
            match read {
                Ok(read) if read > 0 => got += read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("the peer hangs"),
                _ => return false,
            }
        }
        assert_eq!(got, LARGE);
        true
    });
}

#[test]
fn an_upload_that_drips_in_is_told_so_and_gives_its_room_back() {
    let upstream = talkative();
    let room = ["--max-buffered", "64 KiB", "--max-request-body", "64 KiB"];
    let proxy = Proxy::start(&upstream.url(), &[&room[..], &["--body-deadline", "2s"]].concat());
    let whole = chat("/v1/chat/completions", 40_000);
    let (most, drops) = whole.split_at(whole.len() - 10_000);
    let mut client = Wire::connect(proxy.address);
    client.write(most);
    let mut sending = Wire::new(client.stream.try_clone().unwrap());
    let dripping = thread::spawn({
        let drops = drops.to_owned();
        move || {
            let mut drops = drops.bytes();
            while drops.next().is_some_and(|drop| sending.stream.write_all(&[drop]).is_ok()) {
                thread::sleep(Duration::from_millis(50));
            }
        }
    });
    let answer = client.message();
    assert_eq!(answer.status(), 408, "{}", answer.text());
    assert!(answer.text().contains("body_deadline"), "the answer does not name the limit: {}", answer.text());
    drop(client);
    dripping.join().unwrap();
    assert_eq!(patient(&proxy, || whole.clone()).status(), 200);
}

/// An upstream whose replies are large, or endless, or neither.
fn talkative() -> Upstream {
    Upstream::start(|wire| {
        while let Some(request) = wire.try_message() {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: ";
            if request.head.contains("/endless/") {
                wire.write(format!("{head}text/event-stream\r\n\r\n"));
                let events = EVENT.repeat(100);
                while wire.stream.write_all(events.as_bytes()).is_ok() {}
            } else if request.head.contains("/large ") {
                wire.write(format!("{head}text/plain\r\ncontent-length: {LARGE}\r\n\r\n"));
                let piece = [b'x'; 64 * 1024];
                let _ = (0..LARGE / piece.len()).try_for_each(|_| wire.stream.write_all(&piece));
            } else {
                let length = REPLY.len();
                wire.write(format!("{head}application/json\r\ncontent-length: {length}\r\n\r\n{REPLY}"));
            }
        }
    })
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")
}

fn chat(path: &str, size: usize) -> String {
    let body = format!(r#"{{"messages":[{{"role":"user","content":"{}"}}]}}"#, "x".repeat(size));
    format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\nx-session-id: s\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Runs a client that is never slow by itself, until it has got all. A reply may be cut only where the machine made the
/// client or its peer slow: then the client runs again.
fn steadily(client: impl Fn(&mut Pace) -> bool) {
    // Not often: a wait that is the proxy's own counts as well.
    for _ in 0..3 {
        let mut pace = Pace { last: Instant::now(), longest: Duration::ZERO };
        if client(&mut pace) {
            return;
        }
        assert!(
            pace.longest > Duration::from_secs(1),
            "the reply was cut: it was steady, {:?}",
            pace.longest
        );
    }
    panic!("the reply is always cut, after a time in which nothing came or the machine was too slow");
}

/// How much time passed between two steps of a client, at most.
struct Pace {
    last: Instant,
    longest: Duration,
}

impl Pace {
    fn step(&mut self) {
        self.longest = self.longest.max(self.last.elapsed());
        self.last = Instant::now();
    }
}

/// The answer to a client that sends its request again after each 503.
fn patient(proxy: &Proxy, request: impl Fn() -> String) -> Message {
    let began = Instant::now();
    loop {
        let answer = Wire::connect(proxy.address).exchange(request());
        if answer.status() != 503 {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "there is never room again");
        thread::sleep(Duration::from_millis(20));
    }
}
