//! The end of the program: SIGTERM, SIGINT, the deadline.

use std::{
    net::TcpStream,
    sync::{Arc, Mutex, mpsc},
};

use crate::common::{
    process::Proxy,
    wire::{PATIENCE, Upstream, Wire, ask},
};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};

const FINISHING: &str = "finishing what has begun";

#[test]
fn a_stream_is_finished_after_sigterm_and_nothing_new_is_begun() {
    let (upstream, go_on) = held_stream();
    let proxy = Proxy::start(&upstream.url(), &["--admin", "127.0.0.1:0"]);
    let mut client = begun(&proxy);
    proxy.signal("TERM");
    proxy.wait_for(FINISHING);
    assert!(TcpStream::connect(proxy.address).is_err(), "a new connection was accepted");
    let ready = ask(proxy.admin.unwrap(), "GET /readyz HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(ready.status(), 503);
    assert!(ready.text().contains("\"draining\":true"), "{}", ready.text());
    go_on.send(()).unwrap();
    let rest = String::from_utf8(client.rest()).unwrap();
    assert!(rest.contains("data: two") && rest.ends_with("0\r\n\r\n"), "the stream was not finished: {rest}");
    let (code, log) = proxy.wait();
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn a_stream_that_outlives_the_deadline_is_cut_and_told() {
    let (upstream, _go_on) = held_stream();
    let proxy = Proxy::start(&upstream.url(), &["--drain-deadline", "300ms"]);
    let mut client = begun(&proxy);
    proxy.signal("TERM");
    let rest = String::from_utf8(client.rest()).unwrap();
    assert!(!rest.ends_with("0\r\n\r\n"), "the cut became an end: {rest}");
    let (code, log) = proxy.wait();
    assert_eq!(code, Some(3), "{log}");
    assert!(log.contains("connections cut at the drain deadline of 300ms: 1"), "{log}");
}

#[test]
fn a_tunnel_that_outlives_the_deadline_is_cut_and_told() {
    let upstream = Upstream::start(|wire| {
        wire.message();
        wire.write("HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello");
        wire.rest();
    });
    let proxy = Proxy::start(&upstream.url(), &["--drain-deadline", "300ms"]);
    let mut client = Wire::connect(proxy.address);
    client.write("GET /v1/realtime HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    client.until("hello");
    proxy.signal("TERM");
    let (code, log) = proxy.wait();
    assert_eq!(code, Some(3), "{log}");
}

#[test]
fn a_turn_that_ends_during_the_drain_is_stored() {
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let (seen, requests) = mpsc::channel();
    let upstream = Upstream::start(move |wire| {
        seen.send(wire.message().text()).unwrap();
        wire.write("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n");
        wire.write("data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"first\"}}]}\n\n");
        let _ = wait.lock().unwrap().recv_timeout(PATIENCE);
        wire.write(
            "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n",
        );
    });
    let directory = tempfile::tempdir().unwrap();
    // That the machine is busy is no fault of the store's.
    let args = ["--store", "sqlite:s.db", "--load-timeout", "30s"];
    let start = || Proxy::start_in(directory.path(), &upstream.url(), &args);
    let post = |text: &str| {
        let body = format!("{{\"stream\":true,\"messages\":[{{\"role\":\"user\",\"content\":\"{text}\"}}]}}");
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
             x-session-id: s\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let proxy = start();
    let mut client = Wire::connect(proxy.address);
    client.write(post("one"));
    client.until("first");
    proxy.signal("TERM");
    proxy.wait_for(FINISHING);
    go_on.send(()).unwrap();
    client.until("[DONE]");
    let (code, log) = proxy.wait();
    assert_eq!(code, Some(0), "{log}");

    let proxy = start();
    go_on.send(()).unwrap();
    assert_eq!(ask(proxy.address, post("two")).status(), 200);
    let request = requests.iter().nth(1).unwrap();
    assert!(request.contains("\"one\"") && request.contains("\"first\""), "the turn is lost: {request}");
}

#[test]
fn a_reply_that_is_read_on_for_a_client_that_left_and_does_not_end_is_told() {
    let (upstream, _go_on) = held_stream();
    let proxy = Proxy::start(&upstream.url(), &["--drain-deadline", "300ms", "--on-disconnect", "drain"]);
    let mut client = Wire::connect(proxy.address);
    let chat = "{\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}";
    client.write(format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
         x-session-id: s\r\ncontent-length: {}\r\n\r\n{chat}",
        chat.len()
    ));
    client.until("data: one\n\n");
    drop(client);
    proxy.signal("TERM");
    let (code, log) = proxy.wait();
    assert_eq!(code, Some(3), "{log}");
    assert!(log.contains("turns NOT stored: 1"), "{log}");
}

#[test]
fn a_second_signal_ends_at_once() {
    let (upstream, _go_on) = held_stream();
    let proxy = Proxy::start(&upstream.url(), &["--drain-deadline", "1h"]);
    let mut client = begun(&proxy);
    proxy.signal("INT");
    proxy.wait_for(FINISHING);
    proxy.signal("INT");
    let (code, log) = proxy.wait();
    assert_eq!(code, Some(130), "{log}");
    assert!(!client.rest().ends_with(b"0\r\n\r\n"));
}

#[test]
fn idle_and_half_begun_connections_do_not_hold_the_end_up() {
    let (upstream, _requests) = Upstream::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let proxy = Proxy::start(&upstream.url(), &["--drain-deadline", "1h", "--header-read-timeout", "1s"]);
    let silent = Wire::connect(proxy.address);
    let mut half = Wire::connect(proxy.address);
    half.write("GET / HTTP/1.1\r\nhost:");
    let mut idle = Wire::connect(proxy.address);
    idle.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(idle.message().status(), 200);
    proxy.signal("TERM");
    let (code, log) = proxy.wait();
    assert_eq!(code, Some(0), "{log}");
    drop(silent);
}

#[test]
fn a_half_sent_head_at_the_deadline_is_no_reply_that_was_cut() {
    let proxy =
        Proxy::start("http://127.0.0.1:9", &["--drain-deadline", "300ms", "--header-read-timeout", "1h"]);
    let mut half = Wire::connect(proxy.address);
    half.write("GET / HTTP/1.1\r\nhost:");
    proxy.signal("TERM");
    let (code, log) = proxy.wait();
    assert_eq!(code, Some(0), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_http2_connection_does_not_hold_the_end_up() {
    let proxy = Proxy::start("http://127.0.0.1:9", &["--drain-deadline", "1h"]);
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Empty<Bytes>>();
    let reply = client.get(proxy.url().parse().unwrap()).await.unwrap();
    assert_eq!(reply.status(), 502);
    reply.into_body().collect().await.unwrap();
    proxy.signal("TERM");
    let (code, log) = tokio::task::spawn_blocking(|| proxy.wait()).await.unwrap();
    assert_eq!(code, Some(0), "{log}");
}

/// An upstream that sends one event, and the other after a signal.
fn held_stream() -> (Upstream, mpsc::Sender<()>) {
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let upstream = Upstream::start(move |wire| {
        wire.message();
        wire.write(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        );
        wire.write("b\r\ndata: one\n\n\r\n");
        let _ = wait.lock().unwrap().recv_timeout(PATIENCE);
        wire.write("b\r\ndata: two\n\n\r\n0\r\n\r\n");
    });
    (upstream, go_on)
}

/// A client that has received the first event.
fn begun(proxy: &Proxy) -> Wire {
    let mut client = Wire::connect(proxy.address);
    client.write("GET /events HTTP/1.1\r\nhost: a\r\n\r\n");
    client.until("data: one\n\n");
    client
}
