//! Bad input gives its documented status and `code`, and leaves nothing upstream or in the store.

use std::io::Write;

use crate::common::*;
use serde_json::json;

/// The default limit of a request body.
const BODY_LIMIT: usize = 32 << 20;

/// Sends it and checks status and code, the error's shape, and that it left no trace.
async fn refused(post: Post, status: u16, code: &str) -> Answer {
    let (upstream, proxy) = pair().await;
    let answer = post.send(&proxy).await;
    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{}", answer.text());
    let error = &answer.json()["error"];
    assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
    assert!(error["type"].is_string() && error.get("param").is_some(), "{error}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(upstream.request_count(), 0, "nothing reaches the upstream");
    assert!(proxy.sessions().await.is_empty(), "nothing is stored");
    Post::chat(body(&[user("still there?")])).session("after").send(&proxy).await.ok();
    answer
}

fn hello() -> Post {
    Post::chat(body(&[user("my secret is 4711")]))
}

#[tokio::test]
async fn an_empty_id_is_refused() {
    refused(hello().session(""), 400, "invalid_session_id").await;
}

#[tokio::test]
async fn an_id_of_129_bytes_is_refused_and_one_of_128_is_not() {
    refused(hello().session(&"x".repeat(129)), 400, "invalid_session_id").await;
    let (_upstream, proxy) = pair().await;
    hello().session(&"x".repeat(128)).send(&proxy).await.ok();
    assert_eq!(proxy.stored(&"x".repeat(128)).await.len(), 1);
}

#[tokio::test]
async fn an_id_with_a_space_is_refused() {
    refused(hello().session("two words"), 400, "invalid_session_id").await;
}

#[tokio::test]
async fn an_id_outside_ascii_is_refused() {
    refused(hello().session("sess\u{e9}"), 400, "invalid_session_id").await;
    refused(hello().header("x-session-id", b"sess\xe9"), 400, "invalid_session_id").await;
}

#[tokio::test]
async fn two_different_ids_are_refused_and_the_same_twice_is_not() {
    refused(hello().session("a").session("b"), 400, "invalid_session_id").await;
    let (_upstream, proxy) = pair().await;
    hello().session("a").session("a").send(&proxy).await.ok();
    assert_eq!(proxy.stored("a").await.len(), 1);
}

#[tokio::test]
async fn an_error_quotes_no_message_and_no_id() {
    let answer = refused(hello().session("my secret id"), 400, "invalid_session_id").await;
    assert!(!answer.text().contains("4711") && !answer.text().contains("secret"), "{}", answer.text());
}

#[tokio::test]
async fn an_unknown_control_is_refused() {
    refused(hello().session("s").control("forget"), 400, "invalid_request").await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_by_its_length() {
    let answer = refused(huge().session("s"), 413, "request_too_large").await;
    let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(
        message.contains("32") || message.contains(&BODY_LIMIT.to_string()),
        "it names the limit: {message}"
    );
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_without_a_length() {
    refused(huge().session("s").chunked(), 413, "request_too_large").await;
}

#[tokio::test]
async fn a_body_at_the_limit_is_taken() {
    let (upstream, proxy) = pair().await;
    let frame = body(&[user("")]).len();
    let post = Post::chat(body(&[user(&"x".repeat(BODY_LIMIT - frame))])).session("s");
    post.send(&proxy).await.ok();
    assert_eq!(upstream.requests()[0].body.len(), BODY_LIMIT);
}

#[tokio::test]
async fn a_gzip_bomb_is_refused() {
    let bomb = gzip(body(&[user(&"0".repeat(BODY_LIMIT * 2))]).as_bytes());
    refused(Post::chat(bomb).header("content-encoding", "gzip").session("s"), 413, "request_too_large").await;
}

#[tokio::test]
async fn a_corrupt_gzip_body_is_refused() {
    let whole = gzip(body(&[user("hi")]).as_bytes());
    let (cut, mut flipped) = (whole[..whole.len() / 2].to_vec(), whole);
    let crc = flipped.len() - 6;
    flipped[crc] ^= 0xff;
    for bytes in [b"this is no gzip".to_vec(), cut, flipped, Vec::new()] {
        let post = Post::chat(bytes).header("content-encoding", "gzip").session("s");
        refused(post, 400, "invalid_request").await;
    }
}

#[tokio::test]
async fn an_encoding_that_we_do_not_speak_is_refused() {
    let post = hello().header("content-encoding", "compress").session("s");
    refused(post, 415, "unsupported_encoding").await;
}

#[tokio::test]
async fn a_missing_id_is_refused_where_one_is_required() {
    let (upstream, proxy) = pair_with(|launch| launch.config("missing_session = \"reject\"\n")).await;
    let answer = hello().send(&proxy).await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "missing_session_id"));
    assert_eq!(upstream.request_count(), 0);
}

#[tokio::test]
async fn a_body_that_is_no_chat_request_passes_untouched_and_leaves_nothing() {
    let (upstream, proxy) = pair().await;
    let bodies: [(&[u8], &str); 6] = [
        (b"", "not_json"),
        (b"{", "not_json"),
        (b"{\"messages\":[{\"role\":\"user\",\"content\":\"\xff\"}]}", "not_json"),
        (b"{\"model\":\"m\"}", "no_messages"),
        (b"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"messages\":[]}", "duplicate_messages"),
        (b"{\"messages\":\"hi\"}", "not_messages"),
    ];
    for (bytes, reason) in bodies {
        let answer = Post::chat(bytes).session("s").send(&proxy).await.ok();
        assert_eq!((answer.outcome(), answer.told("reason")), ("bypass", reason));
        assert_eq!(upstream.requests().pop().unwrap().body, bytes);
    }
    assert!(proxy.stored("s").await.is_empty());
}

#[tokio::test]
async fn an_unreachable_upstream_is_a_502_and_leaves_nothing() {
    let (upstream, proxy) = pair().await;
    upstream.stop().await;
    let answer = hello().session("s").send(&proxy).await;
    assert_eq!(answer.status, 502, "{}", answer.text());
    assert!(answer.json()["error"]["message"].is_string());
    assert!(proxy.stored("s").await.is_empty());
}

#[tokio::test]
async fn a_reply_that_breaks_off_reaches_the_client_broken_and_is_not_stored() {
    let (upstream, proxy) = pair().await;
    let word = Chunk::delta(&json!({"content": "half"}));
    upstream.push(Reply::chunks([word]).then(Step::Cut));
    let answer = Post::chat(stream_body(&[user("hi")])).session("s").send(&proxy).await;
    assert_eq!((answer.status, answer.end), (200, End::Cut), "a cut stays a cut");
    assert!(answer.text().contains("half"));
    assert!(proxy.stored("s").await.is_empty());
}

#[tokio::test]
async fn an_unknown_setting_is_refused_by_name() {
    let ended = Launch::new("http://127.0.0.1:9").config("windw = 3\n").run_to_end().await;
    assert!(!ended.status.success());
    assert!(ended.log.contains("windw"), "{}", ended.log);
}

#[tokio::test]
async fn a_corrupt_store_file_is_refused_and_left_as_it_is() {
    let launch = Launch::new("http://127.0.0.1:9");
    let path = launch.store_path();
    let garbage = b"this is no database, and it is somebody's file. ".repeat(200);
    std::fs::write(&path, &garbage).unwrap();
    let ended = launch.clone().run_to_end().await;
    assert!(!ended.status.success());
    assert!(ended.log.contains("sessions.db"), "it names the file: {}", ended.log);
    assert_eq!(std::fs::read(&path).unwrap(), garbage);
}

#[tokio::test]
async fn a_store_that_cannot_be_written_is_refused_at_the_start() {
    let launch = Launch::new("http://127.0.0.1:9");
    let blocked = launch.dir().join("a-file");
    std::fs::write(&blocked, "").unwrap();
    let path = blocked.join("sessions.db");
    let ended = launch.store(&format!("sqlite:{}", path.display())).run_to_end().await;
    assert!(!ended.status.success());
    assert!(ended.log.contains("sessions.db"), "it names the file: {}", ended.log);
}

#[tokio::test]
async fn a_port_in_use_is_told_with_its_address() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let ended = Launch::new("http://127.0.0.1:9").arg("--listen").arg(&addr).run_to_end().await;
    assert!(!ended.status.success());
    assert!(ended.log.contains(&addr), "{}", ended.log);
}

fn huge() -> Post {
    Post::chat(body(&[user(&"x".repeat(BODY_LIMIT + 1))]))
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}
