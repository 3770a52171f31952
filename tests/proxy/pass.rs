//! What is not a session's passes through the proxy as if it were not there.

use std::{
    io::{Read, Write},
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use crate::common::{
    process::Proxy,
    wire::{PATIENCE, Upstream, Wire, ask},
};
use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// More than all buffers on the way hold.
const LARGE: usize = 20 * 1024 * 1024;

#[test]
fn a_request_passes_with_its_path_query_headers_and_body() {
    let (upstream, requests) = Upstream::answering(OK);
    let proxy = Proxy::start(&format!("{}/base/", upstream.url()), &[]);
    let reply = ask(
        proxy.address,
        "PATCH /v1/x%2Fy//z?q=a%20b&&r HTTP/1.1\r\nhost: proxy\r\nx-one: 1\r\nX-One: 2\r\n\
         authorization: Bearer k\r\ncontent-length: 5\r\n\r\nh\0llo",
    );
    assert_eq!((reply.status(), reply.text().as_str()), (200, "ok"));
    let request = requests.recv_timeout(PATIENCE).unwrap();
    assert!(request.head.starts_with("PATCH /base/v1/x%2Fy//z?q=a%20b&&r HTTP/1.1\r\n"), "{}", request.head);
    assert_eq!(request.header("host"), [upstream.address.to_string()], "the host is the upstream's");
    assert_eq!(request.header("x-one"), ["1", "2"]);
    assert_eq!(request.header("authorization"), ["Bearer k"]);
    assert_eq!(request.header("content-length"), ["5"]);
    assert_eq!(request.body, b"h\0llo");
    for name in ["x-forwarded-for", "via", "user-agent", "accept", "connection"] {
        assert_eq!(request.header(name), [""; 0], "{name} was added");
    }
}

#[test]
fn the_host_of_the_client_and_its_address_are_told_if_asked_for() {
    let (upstream, requests) = Upstream::answering(OK);
    let proxy = Proxy::start(&upstream.url(), &["--preserve-host", "--forwarded-headers"]);
    ask(proxy.address, "GET / HTTP/1.1\r\nhost: app.example\r\nx-forwarded-for: 203.0.113.7\r\n\r\n");
    let request = requests.recv_timeout(PATIENCE).unwrap();
    assert_eq!(request.header("host"), ["app.example"]);
    assert_eq!(request.header("x-forwarded-for"), ["203.0.113.7, 127.0.0.1"]);
    assert_eq!(request.header("x-forwarded-proto"), ["http"]);
    assert_eq!(request.header("x-forwarded-host"), ["app.example"]);
}

#[test]
fn hop_by_hop_headers_stop_here_in_both_directions() {
    let (upstream, requests) = Upstream::answering(
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive, x-hop\r\nkeep-alive: timeout=9\r\n\
         proxy-authenticate: Basic\r\nx-hop: 1\r\nx-stays: 1\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n\r\nok",
    );
    let proxy = Proxy::start(&upstream.url(), &[]);
    let reply = ask(
        proxy.address,
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: x-mine, keep-alive\r\nx-mine: 1\r\nkeep-alive: timeout=1\r\n\
         proxy-connection: keep-alive\r\nproxy-authorization: Basic x\r\nte: gzip, trailers\r\nx-stays: 1\r\n\r\n",
    );
    let request = requests.recv_timeout(PATIENCE).unwrap();
    for name in ["x-mine", "keep-alive", "proxy-connection", "proxy-authorization", "connection"] {
        assert_eq!(request.header(name), [""; 0], "{name} went to the upstream");
    }
    assert_eq!(request.header("te"), ["trailers"]);
    assert_eq!(request.header("x-stays"), ["1"]);
    for name in ["x-hop", "keep-alive", "proxy-authenticate", "connection"] {
        assert_eq!(reply.header(name), [""; 0], "{name} went to the client");
    }
    assert_eq!(reply.header("x-stays"), ["1"]);
    assert_eq!(reply.header("set-cookie"), ["a=1", "b=2"]);
}

#[test]
fn errors_redirects_and_odd_replies_are_the_upstreams() {
    for (reply, status, header) in [
        ("HTTP/1.1 302 Found\r\nlocation: http://elsewhere/\r\ncontent-length: 0\r\n\r\n", 302, "location"),
        ("HTTP/1.1 429 No\r\nretry-after: 7\r\ncontent-length: 3\r\n\r\nno\n", 429, "retry-after"),
        ("HTTP/1.1 503 Gone\r\nx-should-retry: false\r\ncontent-length: 0\r\n\r\n", 503, "x-should-retry"),
        ("HTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 204 No\r\netag: \"x\"\r\n\r\n", 204, "etag"),
    ] {
        let (upstream, requests) = Upstream::answering(reply);
        let proxy = Proxy::start(&upstream.url(), &[]);
        let got = ask(proxy.address, "GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(got.status(), status);
        assert_eq!(got.header(header).len(), 1, "{header} is missing: {}", got.head);
        assert_eq!(requests.iter().take(1).count(), 1);
        assert!(requests.try_recv().is_err(), "a {status} was followed or tried again");
    }
}

#[test]
fn a_body_of_unknown_length_stays_one_and_trailers_pass_both_ways() {
    let (upstream, requests) = Upstream::answering(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 9\r\n\r\n",
    );
    let proxy = Proxy::start(&upstream.url(), &[]);
    let reply = ask(
        proxy.address,
        "POST / HTTP/1.1\r\nhost: a\r\nte: trailers\r\ntrailer: x-digest\r\ntransfer-encoding: chunked\r\n\r\n\
         2\r\nhe\r\n3;ext=1\r\nllo\r\n0\r\nx-digest: d\r\n\r\n",
    );
    let request = requests.recv_timeout(PATIENCE).unwrap();
    assert_eq!(request.header("transfer-encoding"), ["chunked"]);
    assert_eq!(request.header("content-length"), [""; 0]);
    assert_eq!(request.body, b"hello");
    assert_eq!(request.trailers, "x-digest: d\r\n");
    assert_eq!(reply.header("transfer-encoding"), ["chunked"]);
    assert_eq!(reply.text(), "abc");
    assert_eq!(reply.trailers, "x-sum: 9\r\n");
}

#[test]
fn the_proxy_asks_for_the_body_itself_when_it_is_expected_to() {
    let (upstream, requests) = Upstream::answering(OK);
    let proxy = Proxy::start(&upstream.url(), &[]);
    let mut client = Wire::connect(proxy.address);
    client.write("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n");
    assert!(client.until("\r\n\r\n").starts_with("HTTP/1.1 100 "), "the client was not asked for the body");
    client.write("body");
    assert_eq!(client.message().status(), 200);
    let request = requests.recv_timeout(PATIENCE).unwrap();
    assert_eq!(request.header("expect"), [""; 0]);
    assert_eq!(request.body, b"body");
}

#[test]
fn an_old_client_and_one_that_wants_the_head_only_are_served() {
    let (upstream, requests) =
        Upstream::answering("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
    let proxy = Proxy::start(&upstream.url(), &[]);
    let mut old = Wire::connect(proxy.address);
    old.write("GET / HTTP/1.0\r\n\r\n");
    let reply = String::from_utf8(old.rest()).unwrap();
    assert!(reply.starts_with("HTTP/1.0 200 ") && reply.ends_with("\r\n\r\nok"), "{reply}");
    assert!(!reply.contains("chunked"), "HTTP/1.0 knows no chunks: {reply}");
    assert!(requests.recv_timeout(PATIENCE).unwrap().head.contains("HTTP/1.1\r\n"));

    let upstream = Upstream::start(|wire| {
        while wire.try_until("\r\n\r\n").is_some() {
            wire.write("HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n");
        }
    });
    let proxy = Proxy::start(&upstream.url(), &[]);
    let mut client = Wire::connect(proxy.address);
    client.write("HEAD / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    let reply = String::from_utf8(client.rest()).unwrap();
    assert!(reply.contains("content-length: 1234") && reply.ends_with("\r\n\r\n"), "{reply}");
}

#[test]
fn a_connection_carries_one_request_after_the_other_in_both_legs() {
    let (upstream, requests) = Upstream::answering(OK);
    let proxy = Proxy::start(&upstream.url(), &[]);
    let mut client = Wire::connect(proxy.address);
    for number in 0..5 {
        client.write(format!("GET /{number} HTTP/1.1\r\nhost: a\r\n\r\n"));
        assert_eq!(client.message().status(), 200);
        let request = requests.recv_timeout(PATIENCE).unwrap();
        assert!(request.head.starts_with(&format!("GET /{number} ")), "{}", request.head);
    }
    assert_eq!(upstream.connections(), 1, "connections to the upstream are not kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_speaks_http2_gets_the_same() {
    let (upstream, requests) = Upstream::answering(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: x-hop\r\nx-hop: 1\r\ntrailer: x-sum\r\n\r\n\
         3\r\nabc\r\n0\r\nx-sum: 9\r\n\r\n",
    );
    let proxy = Proxy::start(&upstream.url(), &[]);
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let request = Request::post(format!("{}/v1/x?q", proxy.url()))
        .header("te", "trailers")
        .body(Full::new(Bytes::from_static(b"hello")))
        .unwrap();
    let reply = client.request(request).await.unwrap();
    assert_eq!((reply.version(), reply.status().as_u16()), (Version::HTTP_2, 200));
    assert!(!reply.headers().contains_key("x-hop"));
    let body = reply.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["x-sum"], "9");
    assert_eq!(body.to_bytes(), "abc");
    let request = requests.recv_timeout(PATIENCE).unwrap();
    assert!(request.head.starts_with("POST /v1/x?q HTTP/1.1\r\n"), "{}", request.head);
    assert_eq!(request.header("host"), [upstream.address.to_string()]);
    assert_eq!(request.header("content-length"), ["5"]);
    assert_eq!(request.body, b"hello");
}

#[test]
fn an_event_reaches_the_client_while_the_upstream_still_thinks() {
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let upstream = Upstream::start(move |wire| {
        wire.message();
        wire.write(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        );
        wire.write("b\r\ndata: one\n\n\r\n");
        wait.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        wire.write("b\r\ndata: two\n\n\r\n0\r\n\r\n");
    });
    let proxy = Proxy::start(&upstream.url(), &[]);
    let mut client = Wire::connect(proxy.address);
    client.write("GET /events HTTP/1.1\r\nhost: a\r\n\r\n");
    client.until("data: one\n\n");
    go_on.send(()).unwrap();
    client.until("data: two\n\n");
    client.until("0\r\n\r\n");
}

#[test]
fn a_large_body_passes_whole_both_ways() {
    let upstream = Upstream::start(|wire| {
        let request = wire.message();
        wire.write(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", request.body.len()));
        wire.write(&request.body);
    });
    let proxy = Proxy::start(&upstream.url(), &[]);
    let body: Vec<u8> = (0..LARGE).map(|at| (at * 31 % 251) as u8).collect();
    let mut client = Wire::connect(proxy.address);
    client.write(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {LARGE}\r\n\r\n"));
    client.write(&body);
    let reply = client.message();
    assert!(reply.body == body, "{} of {LARGE} bytes came back, or other ones", reply.body.len());
}

#[test]
fn a_slow_reader_holds_the_upstream_back() {
    let (sent, passed) = mpsc::channel();
    let upstream = Upstream::start(move |wire| {
        wire.message();
        wire.write(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 4 * LARGE));
        sent.send(write_until_stuck(wire)).unwrap();
    });
    let proxy = Proxy::start(&upstream.url(), &[]);
    let mut client = Wire::connect(proxy.address);
    client.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    client.until("\r\n\r\n");
    let written = passed.recv_timeout(PATIENCE).unwrap();
    assert!(written < 4 * LARGE, "the proxy took everything although nobody read");
}

#[test]
fn a_slow_upstream_holds_the_client_back() {
    let (done, wait) = mpsc::channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let upstream = Upstream::start(move |wire| {
        wire.until("\r\n\r\n");
        let _ = wait.lock().unwrap().recv_timeout(PATIENCE);
    });
    let proxy = Proxy::start(&upstream.url(), &[]);
    let mut client = Wire::connect(proxy.address);
    client.write(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", 4 * LARGE));
    let written = write_until_stuck(&mut client);
    assert!(written < 4 * LARGE, "the proxy took everything although the upstream read nothing");
    drop(done);
}

#[test]
fn a_websocket_passes_byte_for_byte() {
    let upstream = Upstream::start(|wire| {
        let request = wire.message();
        assert_eq!(request.header("connection"), ["upgrade"]);
        assert_eq!(request.header("upgrade"), ["websocket"]);
        wire.write(
            "HTTP/1.1 101 Switching\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-x: y\r\n\r\nhello",
        );
        let said = wire.exactly(4);
        wire.write([&said[..], b"!"].concat());
    });
    let proxy = Proxy::start(&upstream.url(), &[]);
    let mut client = Wire::connect(proxy.address);
    client.write("GET /v1/realtime HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n");
    let head = client.until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("sec-x: y"), "{head}");
    assert!(head.contains("upgrade: websocket"), "{head}");
    assert_eq!(client.exactly(5), b"hello");
    client.write([0, 255, 13, 10]);
    assert_eq!(client.rest(), [0, 255, 13, 10, b'!']);
}

#[test]
fn an_upgrade_that_the_upstream_declines_ends_the_connection() {
    let (upstream, requests) = Upstream::answering(OK);
    let proxy = Proxy::start(&upstream.url(), &[]);
    let mut client = Wire::connect(proxy.address);
    client.write(
        "GET /v1/realtime HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n\
         GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n",
    );
    let reply = String::from_utf8(client.rest()).unwrap();
    assert!(reply.contains("connection: close") && reply.ends_with("ok"), "{reply}");
    assert_eq!(requests.recv_timeout(PATIENCE).unwrap().header("upgrade"), ["websocket"]);
    assert!(requests.try_recv().is_err(), "the bytes after the upgrade became a request");
}

#[test]
fn an_offer_of_h2c_is_ignored() {
    let (upstream, requests) = Upstream::answering(OK);
    let proxy = Proxy::start(&upstream.url(), &[]);
    let reply = ask(
        proxy.address,
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AA\r\n\r\n",
    );
    assert_eq!(reply.status(), 200);
    let request = requests.recv_timeout(PATIENCE).unwrap();
    for name in ["upgrade", "http2-settings", "connection"] {
        assert_eq!(request.header(name), [""; 0], "{name} went to the upstream");
    }
}

#[test]
fn an_https_upstream_is_verified_by_the_authority_that_is_given() {
    let upstream = tls_upstream();
    let proxy = Proxy::start(&upstream, &["--upstream-ca", "tests/fixtures/tls/ca.pem"]);
    let reply = ask(proxy.address, "GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!((reply.status(), reply.text().as_str()), (200, "ok"));

    let stranger = Proxy::start(&upstream, &["--upstream-ca", "tests/fixtures/tls/server.pem"]);
    let reply = ask(stranger.address, "GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(reply.status(), 502, "a certificate of nobody we trust was accepted");
    assert_eq!(reply.code(), "upstream_unreachable");
}

/// Writes until the peer takes no more for a second; answers how much it took.
fn write_until_stuck(wire: &mut Wire) -> usize {
    wire.stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let piece = vec![b'x'; 64 * 1024];
    let mut written = 0;
    while written < 4 * LARGE {
        match wire.stream.write(&piece) {
            Ok(length) => written += length,
            Err(_) => break,
        }
    }
    written
}

/// An upstream behind TLS, with HTTP/1.1 only, that answers `ok`.
fn tls_upstream() -> String {
    use rustls::{
        ServerConfig, ServerConnection, Stream,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    };
    let chain = CertificateDer::pem_file_iter("tests/fixtures/tls/server.pem").unwrap();
    let key = PrivateKeyDer::from_pem_file("tests/fixtures/tls/server.key").unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.map(Result::unwrap).collect(), key)
        .unwrap();
    let config = Arc::new(config);
    let upstream = Upstream::start(move |wire| {
        let mut tls = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = Stream::new(&mut tls, &mut wire.stream);
        let mut read = Vec::new();
        let mut buffer = [0; 4096];
        while !read.ends_with(b"\r\n\r\n") {
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(length) => read.extend_from_slice(&buffer[..length]),
            }
        }
        let _ = stream.write_all(OK.as_bytes());
        let _ = stream.flush();
    });
    format!("https://{}", upstream.address)
}
