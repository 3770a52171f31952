//! More than fits: a refused request is answered and disturbs no other, and no slow peer fills our memory.

use std::{
    io::{Read, Write},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::common::{
    process::Proxy,
    wire::{Message, PATIENCE, Upstream, Wire, ask},
};

const REPLY: &str =
    r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}"#;
const MIB: usize = 1 << 20;

#[test]
fn past_the_limit_a_request_is_refused_and_its_connection_stays_usable() {
    let (upstream, gate) = gated();
    let proxy = Proxy::start(&upstream.url(), &["--max-requests", "2", "--admin", "127.0.0.1:0"]);
    let mut held: Vec<Wire> = (0..2).map(|_| begun(&proxy, "/slow")).collect();
    let mut client = Wire::connect(proxy.address);
    for size in [0, 200_000] {
        client.write(chat("s", size));
        overloaded(&client.message(), "max_requests");
    }
    let metrics = ask(proxy.admin.unwrap(), "GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n").text();
    assert!(metrics.contains("session_memory_http_overloaded_total 2"), "{metrics}");
    proxy.wait_for("overloaded: requests are refused");
    gate.open();
    for wire in &mut held {
        assert!(wire.until("0\r\n\r\n").contains("end"), "a reply that had begun was disturbed");
    }
    let answer = until(|| client.exchange(chat("s", 10)), |answer| answer.status() != 503);
    assert_eq!(answer.status(), 200);
    let said = answer.header("session-memory").concat();
    assert!(said.starts_with("new;"), "a refused request was stored: {said}");
}

#[test]
fn a_client_that_leaves_gives_its_place_back() {
    let (upstream, _gate) = gated();
    let proxy = Proxy::start(&upstream.url(), &["--max-requests", "1"]);
    let held = begun(&proxy, "/slow");
    overloaded(&ask(proxy.address, "GET /fast HTTP/1.1\r\nhost: a\r\n\r\n"), "max_requests");
    drop(held);
    let ask = || ask(proxy.address, "GET /fast HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(until(ask, |answer| answer.status() != 503).status(), 200);
}

#[test]
fn what_is_drained_for_a_client_that_left_keeps_its_place_until_it_has_ended() {
    for path in ["/late/v1/chat/completions", "/slow/v1/chat/completions"] {
        let (upstream, gate) = gated();
        let one = ["--max-requests", "1", "--on-disconnect", "drain", "--log", "session_memory=debug"];
        let proxy = Proxy::start(&upstream.url(), &one);
        let chat = || chat("s", 10).replace("/v1/chat/completions", path);
        let mut client = Wire::connect(proxy.address);
        client.write(chat());
        if path.starts_with("/slow") {
            client.until("begin");
        }
        until(|| upstream.connections(), |connections| *connections == 1);
        drop(client);
        proxy.wait_for("a client's connection broke");
        let next = || ask(proxy.address, chat().replace(path, "/v1/chat/completions"));
        for _ in 0..20 {
            overloaded(&next(), "max_requests");
        }
        gate.open();
        let answer = until(next, |answer| answer.status() != 503);
        let said = answer.header("session-memory").concat();
        assert!(said.starts_with("hit;"), "{path}: it was not drained: {said}");
    }
}

#[test]
fn a_client_that_waits_to_be_asked_for_its_body_is_refused_without_being_asked() {
    let (upstream, _gate) = gated();
    let proxy = Proxy::start(&upstream.url(), &["--max-requests", "1"]);
    let _held = begun(&proxy, "/slow");
    let mut client = Wire::connect(proxy.address);
    client.write("POST /fast HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n");
    let answer = client.message();
    overloaded(&answer, "max_requests");
    assert_eq!(answer.header("connection"), ["close"], "what comes next may be a body or a request");
}

#[test]
fn bodies_with_a_session_take_no_more_memory_than_they_may() {
    let (upstream, _gate) = gated();
    let proxy = Proxy::start(&upstream.url(), &["--max-buffered", "1 MiB", "--max-request-body", "1 MiB"]);
    let big = 600_000;
    for chunked in [false, true] {
        let name = if chunked { "chunked" } else { "known" };
        let whole = if chunked { chunked_chat(name, big) } else { chat(name, big) };
        let mut second = Wire::connect(proxy.address);
        // The first may come before the room of those before it is free, and then holds none itself.
        let (mut first, refused) = until(
            || {
                let mut first = Wire::connect(proxy.address);
                first.write(&whole[..whole.len() - 100_000]);
                let mut answers = (0..20).map(|_| second.exchange(fresh("second", big)));
                let refused = answers.find(|answer| answer.status() != 200);
                (first, refused)
            },
            |(_, refused)| refused.is_some(),
        );
        let refused = refused.unwrap();
        overloaded(&refused, "max_buffered");
        assert_eq!(second.exchange(chat("small", 1000)).status(), 200, "there is room for a small one");
        let plain = chat("none", big).replace("x-session-id", "x-other");
        assert_eq!(second.exchange(&plain).status(), 200, "without a session nothing is held");
        first.write(&whole[whole.len() - 100_000..]);
        assert_eq!(first.message().status(), 200, "a request that had its room was refused");
        let again = until(|| second.exchange(fresh("again", big)), |answer| answer.status() != 503);
        assert_eq!(again.status(), 200, "the room was not given back");
    }
}

#[test]
fn a_compressed_body_that_never_fits_is_not_told_to_come_again() {
    let (upstream, _gate) = gated();
    let json = body(65_300);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(json.as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nx-session-id: s\r\ncontent-type: application/json\r\n\
         content-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
        packed.len()
    );
    let request = [head.as_bytes(), &packed].concat();
    for (room, status) in [("64 KiB", 413), ("66 KiB", 200)] {
        let proxy = Proxy::start(&upstream.url(), &["--max-buffered", room, "--max-request-body", "64 KiB"]);
        let answer = ask(proxy.address, &request);
        assert_eq!(answer.status(), status, "{room}: {}", answer.text());
        if status == 413 {
            assert_eq!(answer.code(), "request_too_large");
            assert!(answer.text().contains("max_buffered"), "{}", answer.text());
        }
    }
}

#[test]
fn stored_turns_hold_none_of_the_room_of_their_requests() {
    let (upstream, _gate) = gated();
    let proxy = Proxy::start(&upstream.url(), &["--max-buffered", "64 KiB", "--max-request-body", "64 KiB"]);
    let mut client = Wire::connect(proxy.address);
    for turn in 0..20 {
        let answer = until(|| client.exchange(chat(&format!("s{turn}"), 40_000)), |it| it.status() != 503);
        assert_eq!(answer.status(), 200);
    }
}

#[test]
fn a_client_that_does_not_read_stops_the_upstream() {
    for session in ["", "x-session-id: s\r\n"] {
        let (sent, total) = (Arc::new(AtomicU64::new(0)), 300 * MIB);
        let count = Arc::clone(&sent);
        let upstream = Upstream::start(move |wire| {
            if wire.try_message().is_some() {
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
                wire.write(format!("{head}content-length: {total}\r\n\r\n"));
                send(wire, total, &count);
            }
        });
        let proxy = Proxy::start(&upstream.url(), &[]);
        let before = resident(&proxy);
        let mut client = Wire::connect(proxy.address);
        let body = r#"{"messages":[{"role":"user","content":"hi"}]}"#;
        client.write(format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n{session}content-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        ));
        client.until("\r\n\r\n");
        stalled(&sent, total);
        let grown = resident(&proxy).saturating_sub(before);
        assert!(grown < 48 * MIB as u64, "{grown} bytes are held for a client that does not read");
        let mut rest = client.buffered() as u64;
        rest += std::io::copy(&mut (&client.stream).take(total as u64 - rest), &mut std::io::sink()).unwrap();
        assert_eq!(rest, total as u64, "the reply did not come whole");
    }
}

#[test]
fn an_upstream_that_does_not_read_stops_the_client() {
    let (go_on, total) = (Arc::new(Gate::default()), 300 * MIB);
    let gate = Arc::clone(&go_on);
    let upstream = Upstream::start(move |wire| {
        wire.until("\r\n\r\n");
        gate.wait();
        let left = total as u64 - wire.buffered() as u64;
        std::io::copy(&mut (&wire.stream).take(left), &mut std::io::sink()).unwrap();
        wire.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    });
    let proxy = Proxy::start(&upstream.url(), &[]);
    let before = resident(&proxy);
    let mut client = Wire::connect(proxy.address);
    client.write(format!("POST /upload HTTP/1.1\r\nhost: a\r\ncontent-length: {total}\r\n\r\n"));
    let sent = Arc::new(AtomicU64::new(0));
    let (mut uploading, count) = (Wire::new(client.stream.try_clone().unwrap()), Arc::clone(&sent));
    let upload = thread::spawn(move || send(&mut uploading, total, &count));
    stalled(&sent, total);
    let grown = resident(&proxy).saturating_sub(before);
    assert!(grown < 48 * MIB as u64, "{grown} bytes are held for an upstream that does not read");
    go_on.open();
    upload.join().unwrap();
    assert_eq!((client.message().status(), sent.load(Ordering::SeqCst)), (200, total as u64));
}

/// Opens once, for all threads that wait.
#[derive(Default)]
struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    fn wait(&self) {
        let shut = |is_open: &mut bool| !*is_open;
        drop(self.opened.wait_timeout_while(self.is_open.lock().unwrap(), PATIENCE, shut).unwrap());
    }
}

/// An upstream that answers at once; but only when the gate is open it ends the reply to what contains `/slow`, and
/// begins that to what contains `/late`.
fn gated() -> (Upstream, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let wait = Arc::clone(&gate);
    let upstream = Upstream::start(move |wire| {
        while let Some(request) = wire.try_message() {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
            if request.head.contains(" /slow") {
                wire.write(format!("{head}transfer-encoding: chunked\r\n\r\n7\r\n{{\"begin\r\n"));
                wait.wait();
                wire.write(format!("6\r\nend\":0\r\n{:x}\r\n,{}\r\n0\r\n\r\n", REPLY.len(), &REPLY[1..]));
                continue;
            }
            if request.head.contains(" /late") {
                wait.wait();
            }
            wire.write(format!("{head}content-length: {}\r\n\r\n{REPLY}", REPLY.len()));
        }
    });
    (upstream, gate)
}

/// A client whose reply has begun.
fn begun(proxy: &Proxy, path: &str) -> Wire {
    let mut wire = Wire::connect(proxy.address);
    wire.write(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n"));
    wire.until("begin");
    wire
}

fn body(size: usize) -> String {
    format!(r#"{{"messages":[{{"role":"user","content":"{}"}}]}}"#, "x".repeat(size))
}

fn chat(session: &str, size: usize) -> String {
    let body = body(size);
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nx-session-id: {session}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// In a session of its own, so that none grows by being asked again.
fn fresh(name: &str, size: usize) -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    chat(&format!("{name}-{}", NUMBER.fetch_add(1, Ordering::Relaxed)), size)
}

fn chunked_chat(session: &str, size: usize) -> String {
    let body = body(size);
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nx-session-id: {session}\r\n\
         content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    )
}

#[track_caller]
fn overloaded(answer: &Message, setting: &str) {
    assert_eq!((answer.status(), answer.code().as_str()), (503, "overloaded"), "{}", answer.text());
    assert_eq!(answer.header("retry-after"), ["1"]);
    assert!(answer.text().contains(setting), "the answer does not name the limit: {}", answer.text());
}

/// Tries again and again until there is what must come.
fn until<T>(mut attempt: impl FnMut() -> T, is_it: impl Fn(&T) -> bool) -> T {
    let began = Instant::now();
    loop {
        let found = attempt();
        if is_it(&found) {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "what must come did not");
    }
}

fn send(wire: &mut Wire, total: usize, sent: &AtomicU64) {
    let piece = vec![b'x'; 64 * 1024];
    while (sent.load(Ordering::SeqCst) as usize) < total && wire.stream.write_all(&piece).is_ok() {
        sent.fetch_add(piece.len() as u64, Ordering::SeqCst);
    }
}

/// Waits until no more is sent, and checks that most of it was not taken.
fn stalled(sent: &AtomicU64, total: usize) {
    let (began, mut before) = (Instant::now(), 0);
    loop {
        thread::sleep(Duration::from_millis(300));
        let now = sent.load(Ordering::SeqCst);
        if now > 0 && now == before {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "it neither stalls nor ends");
        before = now;
    }
    assert!(before < total as u64 / 4, "{before} bytes were taken although nobody reads them");
}

/// What a process has in memory, in bytes.
fn resident(proxy: &Proxy) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}
