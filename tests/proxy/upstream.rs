//! The connections to the upstream: which of them carry another request, and which end.

use std::sync::{Arc, Mutex, mpsc};

use crate::common::{
    process::Proxy,
    wire::{PATIENCE, Upstream, Wire, ask},
};

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// One worker, whose connections all requests share.
fn proxy(upstream: &Upstream) -> Proxy {
    Proxy::start(&upstream.url(), &["--worker-threads", "1"])
}

#[test]
fn clients_that_come_one_after_the_other_share_a_connection() {
    for reply in [
        OK,
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ] {
        let (upstream, _requests) = Upstream::answering(reply);
        let proxy = proxy(&upstream);
        for _ in 0..5 {
            // A client is gone, and its request done with, when its connection has ended.
            let mut client = Wire::connect(proxy.address);
            client.write("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
            assert!(client.rest().starts_with(&reply.as_bytes()[..12]), "{reply}");
        }
        assert_eq!(upstream.connections(), 1, "{reply}");
    }
}

#[test]
fn a_connection_that_the_upstream_has_ended_is_replaced() {
    let (ended, wait) = mpsc::channel();
    let upstream = Upstream::start(move |wire| {
        wire.message();
        wire.write(OK);
        wire.finish();
        ended.send(()).unwrap();
    });
    let proxy = proxy(&upstream);
    for number in 1..=5 {
        let reply = ask(proxy.address, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi");
        assert_eq!((reply.status(), reply.text().as_str()), (200, "ok"), "request {number}");
        wait.recv_timeout(PATIENCE).unwrap();
    }
    assert_eq!(upstream.connections(), 5);
}

#[test]
fn a_connection_that_the_upstream_has_ended_is_not_kept_although_nobody_asks_again() {
    let ((gone, wait), (go_on, kept)) = (mpsc::channel(), mpsc::channel::<()>());
    let kept = Arc::new(Mutex::new(kept));
    let upstream = Upstream::start(move |wire| {
        wire.message();
        wire.write(OK);
        kept.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        wire.finish();
        // Until the proxy ends its side.
        wire.rest();
        gone.send(()).unwrap();
    });
    let proxy = proxy(&upstream);
    let mut client = Wire::connect(proxy.address);
    client.write("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    assert!(client.rest().ends_with(b"ok"));
    go_on.send(()).unwrap();
    wait.recv_timeout(PATIENCE).expect("the proxy keeps a connection that has ended");
}

#[test]
fn words_that_nobody_asked_for_are_nobodys_reply() {
    let (said, wait) = mpsc::channel();
    let upstream = Upstream::start(move |wire| {
        wire.message();
        wire.write(OK);
        wire.write("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwrong");
        said.send(()).unwrap();
        wire.rest();
    });
    let proxy = proxy(&upstream);
    for _ in 0..2 {
        assert_eq!(ask(proxy.address, GET).text(), "ok");
        wait.recv_timeout(PATIENCE).unwrap();
    }
    assert_eq!(upstream.connections(), 2, "a connection was used on which more was said than was asked");
}

#[test]
fn a_request_goes_on_while_its_reply_comes() {
    let upstream = Upstream::start(|wire| {
        wire.until("\r\n\r\n");
        wire.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        while let Some(size) = wire.try_until("\r\n").filter(|size| size != "0\r\n") {
            let piece = wire.until("\r\n");
            wire.write(size + &piece);
        }
        wire.write("0\r\n\r\n");
    });
    let proxy = proxy(&upstream);
    let mut client = Wire::connect(proxy.address);
    client.write("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
    client.until("\r\n\r\n");
    for number in 0..20 {
        client.write(format!("2\r\n{number:02}\r\n"));
        client.until(&format!("{number:02}\r\n"));
    }
    client.write("0\r\n\r\n");
    client.until("0\r\n\r\n");
}

#[test]
fn pieces_that_the_upstream_had_ready_are_all_there_when_it_goes_quiet() {
    let pieces: String = (0..1000).map(|number| format!("6\r\n{number:06}\r\n")).collect();
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let upstream = Upstream::start(move |wire| {
        wire.message();
        wire.write(format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{pieces}"));
        wait.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        wire.write("0\r\n\r\n");
    });
    let proxy = proxy(&upstream);
    let mut client = Wire::connect(proxy.address);
    client.write(GET);
    client.until("000999\r\n");
    go_on.send(()).unwrap();
    client.until("0\r\n\r\n");
}

#[test]
fn a_reply_that_is_given_up_takes_its_connection_with_it() {
    let (gone, wait) = mpsc::channel();
    let upstream = Upstream::start(move |wire| {
        wire.message();
        wire.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
        wire.rest();
        gone.send(()).unwrap();
    });
    let proxy = proxy(&upstream);
    let mut client = Wire::connect(proxy.address);
    client.write(GET);
    client.until("abc");
    drop(client);
    wait.recv_timeout(PATIENCE).expect("the upstream goes on for a client that has left");
}

#[test]
fn a_request_is_sent_to_its_end_although_its_reply_has_ended() {
    const LENGTH: usize = 8 << 20;
    for reply in ["HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n", OK] {
        let (sender, received) = mpsc::channel();
        let upstream = Upstream::start(move |wire| {
            while wire.try_until("\r\n\r\n").is_some() {
                wire.write(reply);
                sender.send(wire.exactly(LENGTH).len()).unwrap();
            }
        });
        let proxy = proxy(&upstream);
        let mut client = Wire::connect(proxy.address);
        for number in 0..2 {
            client.write(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {LENGTH}\r\n\r\n"));
            client.message();
            client.write(vec![b'x'; LENGTH]);
            let arrived = received.recv_timeout(PATIENCE);
            assert_eq!(arrived, Ok(LENGTH), "request {number} was cut off");
        }
    }
}
