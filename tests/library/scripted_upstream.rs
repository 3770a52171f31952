//! The scripted upstream does what its script says: other tests rely on it.

use std::io;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tower_session_memory::testing::upstream::{Chunk, Gate, Reply, Step, Upstream, refuse_unanswered_calls};

/// Sends a chat completion on a connection of its own, which the server is asked to close.
async fn ask(upstream: &Upstream, body: &Value) -> TcpStream {
    let (mut socket, body) = (TcpStream::connect(upstream.addr()).await.unwrap(), body.to_string());
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all((head + &body).as_bytes()).await.unwrap();
    socket
}

/// Everything until the connection closes; a reset is a close.
async fn rest(mut socket: TcpStream) -> String {
    let mut bytes = Vec::new();
    if let Err(error) = socket.read_to_end(&mut bytes).await {
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
    String::from_utf8(bytes).unwrap()
}

fn hello() -> Value {
    json!({"messages": [{"role": "user", "content": "hello"}]})
}

#[tokio::test]
async fn the_model_answers_from_what_it_saw_and_the_request_is_kept() {
    let upstream = Upstream::start().await.unwrap();
    let answer = rest(ask(&upstream, &hello()).await).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("\"content\":\"You said 1 thing: hello\""), "{answer}");
    let seen = upstream.take_requests();
    assert_eq!((seen.len(), seen[0].json()), (1, hello()));
    assert_eq!((upstream.finished(), upstream.abandoned(), upstream.request_count()), (1, 0, 0));
}

#[tokio::test]
async fn queued_replies_come_first_and_each_once() {
    let upstream = Upstream::start().await.unwrap();
    upstream.push(Reply::stream("one two"));
    let answer = rest(ask(&upstream, &hello()).await).await;
    assert!(answer.contains("\"content\":\"one \"") && answer.contains("\"content\":\"two\""), "{answer}");
    assert!(answer.ends_with("data: [DONE]\n\n\r\n0\r\n\r\n"), "{answer}");
    assert!(rest(ask(&upstream, &hello()).await).await.contains("You said"));
}

#[tokio::test]
async fn a_cut_delivers_what_came_before_it_and_no_end() {
    let upstream = Upstream::start().await.unwrap();
    for _ in 0..20 {
        let half = Chunk::delta(&json!({"content": "half"}));
        upstream.push(Reply::chunks([half]).then(Step::Cut));
        let answer = rest(ask(&upstream, &hello()).await).await;
        assert!(answer.contains("half"), "{answer}");
        assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
    }
}

#[tokio::test]
async fn no_answer_is_no_answer() {
    let upstream = Upstream::start().await.unwrap();
    upstream.push(Reply::none());
    assert_eq!(rest(ask(&upstream, &hello()).await).await, "");
}

#[tokio::test]
async fn a_script_waits_for_its_gate_and_tells_how_far_it_came() {
    let upstream = Upstream::start().await.unwrap();
    let (reached, gate) = (Gate::new(), Gate::new());
    let reply =
        Reply::event_stream().then(Step::Open(reached.clone())).then(Step::WaitFor(gate.clone())).done();
    upstream.push(reply);
    let socket = ask(&upstream, &hello()).await;
    reached.opened().await;
    assert_eq!(upstream.finished(), 0);
    gate.open();
    assert!(rest(socket).await.contains("[DONE]"));
    assert_eq!(upstream.finished(), 1);
}

#[tokio::test]
async fn a_reply_whose_client_leaves_is_abandoned() {
    let upstream = Upstream::start().await.unwrap();
    upstream.push(Reply::stream("hello").held_open());
    let mut socket = ask(&upstream, &hello()).await;
    let mut byte = [0];
    socket.read_exact(&mut byte).await.unwrap();
    drop(socket);
    upstream.wait_until(|upstream| upstream.abandoned() == 1).await;
}

#[tokio::test]
async fn stopping_cuts_what_is_open_and_frees_the_port() {
    let upstream = Upstream::start().await.unwrap();
    upstream.push(Reply::stream("hello").held_open());
    let socket = ask(&upstream, &hello()).await;
    upstream.wait_until(|upstream| upstream.request_count() == 1).await;
    let addr = upstream.addr();
    upstream.stop().await;
    assert!(!rest(socket).await.ends_with("0\r\n\r\n"));
    TcpStream::connect(addr).await.expect_err("nobody listens");
}

#[tokio::test]
async fn the_strict_model_refuses_a_call_without_its_result() {
    let upstream = Upstream::start_with(refuse_unanswered_calls).await.unwrap();
    let call = json!({"role": "assistant", "tool_calls": [{"id": "a"}]});
    let result = json!({"role": "tool", "tool_call_id": "a", "content": "1"});
    let user = json!({"role": "user", "content": "and?"});
    let system = json!({"role": "system", "content": "Terse."});
    let cases = [
        (json!([user, call, result, user]), "200"),
        (json!([system, user]), "200"),
        (json!([user, call, user]), "400"),
        (json!([user, call]), "400"),
        (json!([user, result]), "400"),
        (json!([user, system]), "400"),
        (json!([user, {"role": "assistant", "tool_calls": []}]), "400"),
    ];
    for (messages, status) in cases {
        let answer = rest(ask(&upstream, &json!({"messages": messages})).await).await;
        assert_eq!(answer.split(' ').nth(1), Some(status), "{messages}");
    }
}
