//! Clients that lie about where a request ends, clients that do not get on, and upstreams that fail.

use std::time::Instant;

use crate::common::{
    process::Proxy,
    wire::{PATIENCE, Upstream, Wire, ask},
};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[test]
fn a_request_that_may_be_two_is_refused_and_its_connection_ended() {
    let (upstream, requests) = Upstream::answering(OK);
    let proxy = Proxy::start(&upstream.url(), &[]);
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    for (what, request) in [
        (
            "length, then encoding",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "encoding, then length",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n",
        ),
        (
            "a length of zero",
            "POST / HTTP/1.1\r\nhost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "two encodings",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: identity, chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "two encoding headers",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("another encoding", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n"),
        (
            "an encoding in HTTP/1.0",
            "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("two lengths", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nabcd"),
        ("a signed length", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +4\r\n\r\nabcd"),
        ("a space before the colon", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length : 4\r\n\r\nabcd"),
        ("a folded header", "GET / HTTP/1.1\r\nhost: a\r\nx-a: 1\r\n folded\r\n\r\n"),
        ("no host", "GET / HTTP/1.1\r\n\r\n"),
        ("two hosts", "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n"),
        ("no such host", "GET / HTTP/1.1\r\nhost: a b\r\n\r\n"),
        ("another server", "GET http://127.0.0.1:1/ HTTP/1.1\r\nhost: 127.0.0.1:1\r\n\r\n"),
        ("no path", "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n"),
        (
            "our control taken away on the way",
            "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nconnection: session-memory\r\nsession-memory: off\r\ncontent-length: 0\r\n\r\n",
        ),
        (
            "a credential taken away on the way",
            "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nconnection: close, authorization\r\nauthorization: k\r\ncontent-length: 0\r\n\r\n",
        ),
        (
            "an upgrade of a chat",
            "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\ncontent-length: 0\r\n\r\n",
        ),
    ] {
        let mut client = Wire::connect(proxy.address);
        client.write([request, smuggled].concat());
        let reply = String::from_utf8(client.rest()).unwrap();
        assert!(reply.starts_with("HTTP/1.1 400 ") || reply.starts_with("HTTP/1.0 400 "), "{what}: {reply}");
        assert_eq!(reply.matches("HTTP/1.").count(), 1, "{what}: the next request was answered: {reply}");
    }
    assert!(requests.try_recv().is_err(), "a request that was refused reached the upstream");
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn an_ambiguous_request_behind_a_good_one_is_refused_and_the_good_one_is_not() {
    let (upstream, requests) = Upstream::answering(OK);
    let proxy = Proxy::start(&upstream.url(), &[]);
    let mut client = Wire::connect(proxy.address);
    client.write(
        "POST /good HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
         POST /bad HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n",
    );
    let reply = String::from_utf8(client.rest()).unwrap();
    assert!(reply.starts_with("HTTP/1.1 200 ") && reply.contains("HTTP/1.1 400 "), "{reply}");
    assert!(requests.recv().unwrap().head.starts_with("POST /good "));
    assert!(requests.try_recv().is_err());
}

#[test]
fn connect_is_not_allowed_and_other_expectations_fail() {
    let (upstream, _requests) = Upstream::answering(OK);
    let proxy = Proxy::start(&upstream.url(), &[]);
    let connect = ask(proxy.address, "CONNECT 127.0.0.1:1 HTTP/1.1\r\nhost: 127.0.0.1:1\r\n\r\n");
    assert_eq!(connect.status(), 405);
    assert_eq!(connect.header("allow").len(), 1);
    let expect = ask(proxy.address, "GET / HTTP/1.1\r\nhost: a\r\nexpect: magic\r\n\r\n");
    assert_eq!(expect.status(), 417);
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_refusal_has_the_shape_that_clients_of_openai_read() {
    let proxy = Proxy::start("http://127.0.0.1:9", &[]);
    let reply = ask(proxy.address, "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n");
    assert_eq!(reply.header("content-type"), ["application/json"]);
    let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(body["error"]["type"], "invalid_request_error");
    assert_eq!(body["error"]["code"], "invalid_request");
    assert!(body["error"]["message"].is_string() && body["error"]["param"].is_null(), "{body}");
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let (upstream, _requests) = Upstream::answering(OK);
    let proxy = Proxy::start(&upstream.url(), &[]);
    let large = format!("GET / HTTP/1.1\r\nhost: a\r\nx-large: {}\r\n\r\n", "x".repeat(33 * 1024));
    let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x-many: 1\r\n".repeat(101));
    for request in [large, many] {
        let mut client = Wire::connect(proxy.address);
        client.write(request);
        assert!(client.until("\r\n").starts_with("HTTP/1.1 431 "));
    }
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_client_that_does_not_finish_its_head_is_let_go() {
    let proxy = Proxy::start("http://127.0.0.1:9", &["--header-read-timeout", "300ms"]);
    for said in ["", "P", "PRI * HTTP/2.0\r\n", "GET / HT", "GET / HTTP/1.1\r\nhost: a\r\nx-slow: "] {
        let mut client = Wire::connect(proxy.address);
        client.write(said);
        client.rest();
    }
}

#[test]
fn a_client_that_is_quiet_between_requests_is_let_go_later_than_one_within_a_head() {
    let (upstream, _requests) = Upstream::answering(OK);
    let slow = ["--header-read-timeout", "300ms", "--keep-alive-timeout", "1h"];
    let proxy = Proxy::start(&upstream.url(), &slow);
    let (mut quiet, mut half) = (served(&proxy), served(&proxy));
    half.write("G");
    assert!(half.rest().is_empty(), "a head that was not finished was answered");
    quiet.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(quiet.message().status(), 200, "the quiet client was let go too soon");

    let short = Proxy::start(&upstream.url(), &["--keep-alive-timeout", "300ms"]);
    let mut quiet = Wire::connect(short.address);
    quiet.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(quiet.message().status(), 200);
    assert!(quiet.rest().is_empty());
    let mut http2 = Wire::connect(short.address);
    http2.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    let goaway = |bytes: &[u8]| bytes.windows(4).any(|window| window == [0, 0, 8, 7]);
    let mut said = Vec::new();
    while !goaway(&said) {
        said.extend(http2.exactly(1));
    }
}

/// A client that was answered. One that the machine kept from speaking until it was let go comes again.
fn served(proxy: &Proxy) -> Wire {
    let began = Instant::now();
    loop {
        let mut client = Wire::connect(proxy.address);
        client.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        if let Some(answer) = client.try_message() {
            assert_eq!(answer.status(), 200);
            return client;
        }
        assert!(began.elapsed() < PATIENCE, "no client is answered");
    }
}

#[test]
fn a_client_that_does_not_finish_its_body_is_told_so() {
    let upstream = Upstream::start(|wire| {
        wire.rest();
    });
    let proxy = Proxy::start(&upstream.url(), &["--body-read-timeout", "300ms"]);
    for head in ["POST /", "POST /v1/chat/completions"] {
        let mut client = Wire::connect(proxy.address);
        let json = "content-type: application/json\r\nx-session-id: s";
        client.write(format!("{head} HTTP/1.1\r\nhost: a\r\n{json}\r\ncontent-length: 10\r\n\r\nabc"));
        let reply = client.message();
        assert_eq!(reply.status(), 408, "{head}: {}", reply.text());
    }
}

#[test]
fn an_upstream_that_cannot_be_reached_is_502() {
    // A port that the system never gives out: one that was free a moment ago may be the proxy's own by now.
    let free = "127.0.0.1:1";
    for url in [format!("http://{free}"), format!("https://{free}"), "http://nowhere.invalid".to_owned()] {
        let proxy = Proxy::start(&url, &[]);
        let reply = ask(proxy.address, "GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!((reply.status(), reply.code().as_str()), (502, "upstream_unreachable"), "{url}");
        assert!(!reply.text().contains(free), "the upstream's address is told: {}", reply.text());
    }
}

#[test]
fn an_upstream_that_speaks_no_tls_is_502_and_one_that_never_greets_is_504() {
    let plain = Upstream::start(|wire| wire.write(OK));
    let proxy = Proxy::start(&format!("https://{}", plain.address), &[]);
    let reply = ask(proxy.address, "GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!((reply.status(), reply.code().as_str()), (502, "upstream_unreachable"));

    let silent = Upstream::start(|wire| {
        wire.rest();
    });
    let proxy = Proxy::start(&format!("https://{}", silent.address), &["--connect-timeout", "300ms"]);
    let reply = ask(proxy.address, "GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!((reply.status(), reply.code().as_str()), (504, "upstream_timeout"));
}

#[test]
fn an_upstream_that_does_not_answer_is_504_and_one_that_hangs_up_is_502() {
    let silent = Upstream::start(|wire| {
        wire.rest();
    });
    let proxy = Proxy::start(&silent.url(), &["--head-timeout", "300ms"]);
    let reply = ask(proxy.address, "GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!((reply.status(), reply.code().as_str()), (504, "upstream_timeout"));

    let rude = Upstream::start(|wire| {
        wire.message();
    });
    let proxy = Proxy::start(&rude.url(), &[]);
    let post = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi";
    let reply = ask(proxy.address, post);
    assert_eq!((reply.status(), reply.code().as_str()), (502, "upstream_failed"));
    assert_eq!(rude.connections(), 1, "a request that had been sent was sent again");
}

#[test]
fn a_request_that_went_out_on_a_kept_connection_is_not_sent_again() {
    let upstream = Upstream::start(|wire| {
        wire.message();
        wire.write(OK);
        wire.message();
    });
    // Each worker has upstream connections of its own.
    let proxy = Proxy::start(&upstream.url(), &["--worker-threads", "1"]);
    assert_eq!(ask(proxy.address, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").status(), 200);
    let reply = ask(proxy.address, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi");
    assert_eq!((reply.status(), reply.code().as_str()), (502, "upstream_failed"));
    assert_eq!(upstream.connections(), 1, "it was sent again on a new connection");
}

#[test]
fn a_reply_with_two_lengths_reaches_the_client_with_one() {
    for length in [1, 100] {
        let (upstream, _requests) = Upstream::answering(format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        ));
        let proxy = Proxy::start(&upstream.url(), &[]);
        let reply = ask(proxy.address, "GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(reply.header("content-length"), [""; 0], "the length that does not count was passed on");
        assert_eq!(reply.text(), "abc");
    }
    let (upstream, _requests) = Upstream::answering(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    );
    let proxy = Proxy::start(&upstream.url(), &[]);
    let reply = ask(proxy.address, "GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!((reply.status(), reply.code().as_str()), (502, "upstream_failed"), "the coding would be lost");
}

#[test]
fn a_reply_that_breaks_off_is_never_made_whole() {
    for head in ["content-length: 10", "transfer-encoding: chunked"] {
        let chunked = head.contains("chunked");
        let upstream = Upstream::start(move |wire| {
            wire.message();
            let part = if chunked { "3\r\nabc\r\n" } else { "abc" };
            wire.write(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{part}"));
        });
        let proxy = Proxy::start(&upstream.url(), &[]);
        let mut client = Wire::connect(proxy.address);
        client.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        let reply = String::from_utf8(client.rest()).unwrap();
        assert!(reply.contains("abc"), "{head}: what came did not pass: {reply}");
        assert!(!reply.ends_with("0\r\n\r\n"), "{head}: the cut became an end: {reply}");
    }
}

#[test]
fn a_reply_that_stalls_is_cut_and_not_ended() {
    let upstream = Upstream::start(|wire| {
        wire.message();
        wire.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
        wire.rest();
    });
    let proxy = Proxy::start(&upstream.url(), &["--idle-timeout", "300ms"]);
    let mut client = Wire::connect(proxy.address);
    client.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let reply = String::from_utf8(client.rest()).unwrap();
    assert!(reply.contains("abc") && !reply.ends_with("0\r\n\r\n"), "{reply}");
}

#[test]
fn an_upstream_that_switches_protocols_unasked_is_502() {
    let upstream = Upstream::start(|wire| {
        wire.message();
        wire.write("HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n");
        wire.rest();
    });
    let proxy = Proxy::start(&upstream.url(), &[]);
    let reply = ask(proxy.address, "GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(reply.status(), 502);
}

#[test]
fn a_client_that_leaves_takes_its_request_to_the_upstream_with_it() {
    let (sender, gone) = std::sync::mpsc::channel();
    let upstream = Upstream::start(move |wire| {
        wire.message();
        wire.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
        wire.rest();
        sender.send(()).unwrap();
    });
    let proxy = Proxy::start(&upstream.url(), &[]);
    let mut client = Wire::connect(proxy.address);
    client.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    client.until("abc");
    drop(client);
    gone.recv_timeout(PATIENCE).expect("the upstream was never told");
}
