//! Memory stays flat: minutes of everything at once, with sessions that are never done.
//!
//! ```sh
//! SESSION_MEMORY_SOAK_MINUTES=30 cargo test --features proxy --test faults -- --ignored --nocapture soak::
//! ```
#![allow(clippy::disallowed_methods)]

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::common::{
    process::Proxy,
    wire::{Upstream, Wire},
};

/// Clients, each with one request at a time.
const CLIENTS: usize = 4;
/// Conversations that take turns; each goes on for as long as the test does.
const SESSIONS: usize = 200;
/// How often the memory is looked at.
const SAMPLE: Duration = Duration::from_secs(1);

#[test]
#[ignore = "takes minutes: bash tests/run.sh --full"]
fn memory_stays_flat() {
    let minutes =
        std::env::var("SESSION_MEMORY_SOAK_MINUTES").map_or(5.0, |text| text.parse::<f64>().unwrap());
    for store in ["memory", "sqlite:soak.db"] {
        let directory = tempfile::tempdir().unwrap();
        let upstream = Upstream::start(serve);
        let bounds = ["--max-memory", "16 MiB", "--cache-bytes", "8 MiB", "--max-turns", "50"];
        let store_is = ["--store", store, "--admin", "127.0.0.1:0", "--max-requests", "3"];
        let arguments: Vec<&str> = bounds.into_iter().chain(store_is).collect();
        let proxy = Proxy::start_in(directory.path(), &upstream.url(), &arguments);
        let samples = soak(&proxy, Duration::from_secs_f64(minutes * 30.0));
        let third = samples.len() / 3;
        let (middle, last) = (median(&samples[third..2 * third]), median(&samples[2 * third..]));
        println!("{store}: median of the middle third {middle} KiB, of the last third {last} KiB");
        assert!(last * 10 <= middle * 11, "{store}: it grows: {samples:?}");
        proxy.signal("TERM");
        let (code, log) = proxy.wait();
        assert_eq!(code, Some(0), "{log}");
    }
}

/// Asks all there is to ask for the given time; answers the memory that the proxy had, in KiB.
fn soak(proxy: &Proxy, time: Duration) -> Vec<u64> {
    let (over, asked, refused) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let (began, address) = (Instant::now(), proxy.address);
    thread::scope(|threads| {
        for client in 0..CLIENTS {
            let (over, asked, refused) = (&over, &asked, &refused);
            threads.spawn(move || {
                let mut wire = Wire::connect(address);
                for number in (client..).step_by(CLIENTS) {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    ask(address, &mut wire, number, refused);
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut samples = Vec::new();
        while began.elapsed() < time {
            thread::sleep(SAMPLE);
            samples.push(resident(proxy));
            if samples.len().is_multiple_of(10) {
                let (asked, refused) = (asked.load(Ordering::Relaxed), refused.load(Ordering::Relaxed));
                let seconds = began.elapsed().as_secs();
                println!(
                    "{seconds} s: {asked} requests, {refused} refused, {} KiB",
                    samples[samples.len() - 1]
                );
            }
        }
        over.store(true, Ordering::Relaxed);
        samples
    })
}

fn ask(address: SocketAddr, wire: &mut Wire, number: usize, refused: &AtomicUsize) {
    let session = format!("x-session-id: soak-{}\r\n", number / CLIENTS % SESSIONS);
    match number / CLIENTS % 16 {
        // A client that leaves within its reply.
        0 => {
            let mut leaver = Wire::connect(address);
            leaver.write(chat(&session, true, 100));
            leaver.try_until("\r\n\r\n");
            return;
        }
        1 => wire.write(chat("", false, 300_000)),
        2 => wire.write(chat(&session, false, 100_000)),
        kind => wire.write(chat(&session, kind % 2 == 0, 400)),
    }
    let answer = wire.message();
    assert!([200, 503].contains(&answer.status()), "{}: {}", answer.head, answer.text());
    refused.fetch_add(usize::from(answer.status() == 503), Ordering::Relaxed);
}

fn chat(session: &str, stream: bool, size: usize) -> String {
    let text = "x".repeat(size);
    let body = format!(r#"{{"stream":{stream},"messages":[{{"role":"user","content":"{text}"}}]}}"#);
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n{session}content-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn serve(wire: &mut Wire) {
    while let Some(request) = wire.try_message() {
        if request.body.starts_with(br#"{"stream":true"#) {
            wire.write(
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
            );
            for word in 0..20 {
                let finish = if word == 19 { r#""stop""# } else { "null" };
                let delta = r#"{"role":"assistant","content":"word "}"#;
                let event = format!(
                    "data: {{\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{finish}}}]}}\n\n"
                );
                wire.write(format!("{:x}\r\n{event}\r\n", event.len()));
            }
            wire.write("e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
        } else {
            let message = format!(r#"{{"role":"assistant","content":"{}"}}"#, "y".repeat(400));
            let reply =
                format!(r#"{{"choices":[{{"index":0,"message":{message},"finish_reason":"stop"}}]}}"#);
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
            wire.write(format!("{head}content-length: {}\r\n\r\n{reply}", reply.len()));
        }
    }
}

fn median(samples: &[u64]) -> u64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

/// What a process has in memory, in KiB.
fn resident(proxy: &Proxy) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
