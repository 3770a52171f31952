//! Encryption through the binary, on a server of its own: what can be read in the store, and with which keys.

use http::StatusCode;
use serde_json::json;

use crate::{common::*, own::Own, place::KEYS};

on_own_stores! {
    nothing_of_a_conversation_can_be_read_in_the_store
    a_session_whose_key_is_not_there_is_refused_and_the_key_named
    keys_are_rotated_while_conversations_go_on
    a_store_of_plain_turns_is_taken_over_when_that_is_asked_for
}

/// Whether it stands there, as text or as the hexadecimal digits that PostgreSQL shows.
fn holds(bytes: &[u8], text: &str) -> bool {
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    [text, &hex].iter().any(|text| memchr::memmem::find(bytes, text.as_bytes()).is_some())
}

/// A conversation with `canary` in each part of its requests and replies.
async fn conversation(upstream: &Upstream, replicas: &[Proxy]) {
    let call = json!({"id": "canary-call", "type": "function",
        "function": {"name": "canary_tool", "arguments": "{\"for\":\"canary-argument\"}"}});
    let message = json!({"role": "assistant", "content": null, "tool_calls": [call]});
    let choice = json!({"index": 0, "message": message, "finish_reason": "tool_calls"});
    let completion =
        json!({"id": "x", "object": "chat.completion", "model": "canary-model", "choices": [choice]});
    upstream.push(Reply::json(StatusCode::OK, &completion));
    upstream.push(Reply::stream("the canary-reply"));
    let instructed = [system("canary-instructions"), user("canary-question")];
    let results = [result("canary-call", "canary-result")];
    for (turn, messages) in [&instructed[..], &results, &[user("canary-thanks")]].into_iter().enumerate() {
        let post = Post::chat(stream_body(messages)).session("s");
        post.header("authorization", "Bearer canary-credential").send(&replicas[turn % 2]).await.ok();
    }
    let seen = upstream.requests().last().unwrap().messages();
    assert_eq!(seen.len(), 6, "the replicas read each other's turns: {seen:?}");
}

async fn nothing_of_a_conversation_can_be_read_in_the_store(own: Own) {
    let upstream = Upstream::start().await.unwrap();
    for sealed in [true, false] {
        let launch = own.launch(&upstream).namespace(if sealed { "sealed" } else { "open" });
        let launch = launch.env("RUST_LOG", "trace").arg("--admin").arg("127.0.0.1:0");
        let launch = if sealed { launch.env("SESSION_MEMORY_ENCRYPTION_KEY", KEYS) } else { launch };
        let replicas = [launch.clone().start().await, launch.clone().start().await];
        conversation(&upstream, &replicas).await;
        let mut told = String::new();
        for replica in replicas {
            told += &replica.ask_admin("/metrics").await.ok().text();
            told += &replica.ask_admin("/readyz").await.ok().text();
            replica.terminate();
            told += &replica.ended().await.log;
        }
        let found =
            told.lines().find(|line| line.contains("canary") || line.contains("99, 97, 110, 97, 114, 121"));
        assert_eq!(found, None, "sealed = {sealed}: in a log or a metric");
        let dump = own.dump(&launch);
        let parts = ["model", "instructions", "question", "reply", "argument", "result", "thanks"];
        for part in parts.map(|part| format!("canary-{part}")).iter().chain([&"canary_tool".to_owned()]) {
            // The search means something only if it finds what is not encrypted.
            assert_eq!(holds(&dump, part), !sealed, "sealed = {sealed}: {part}");
        }
        assert!(!holds(&dump, "canary-credential"), "no credential is ever stored");
    }
}

async fn say(proxy: &Proxy, text: &str) -> Answer {
    Post::chat(body(&[user(text)])).session("s").send(proxy).await
}

/// Everything that a proxy wrote until it ended.
async fn log_of(proxy: Proxy) -> String {
    proxy.terminate();
    proxy.ended().await.log
}

/// What the client had said when it asked last.
fn asked(upstream: &Upstream) -> Vec<String> {
    let seen = texts(&upstream.requests().last().unwrap().messages());
    seen.into_iter().step_by(2).collect()
}

fn with_keys(launch: &Launch, keys: &str) -> Launch {
    launch.sibling().env("SESSION_MEMORY_ENCRYPTION_KEY", keys)
}

const NEW_KEY: &str = "2026-11 AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

async fn a_session_whose_key_is_not_there_is_refused_and_the_key_named(own: Own) {
    let upstream = Upstream::start().await.unwrap();
    let launch = own.launch(&upstream);
    let sealing = with_keys(&launch, KEYS).start().await;
    say(&sealing, "canary").await.ok();
    let before = upstream.request_count();

    let without = launch.sibling().start().await;
    let answer = say(&without, "and?").await;
    assert_eq!((answer.status, answer.code()), (503, "session_store_unavailable".to_owned()));
    let log = log_of(without).await;
    assert!(log.contains("compressed or encrypted"), "{log}");

    let other = with_keys(&launch, NEW_KEY).start().await;
    assert_eq!(say(&other, "and?").await.status, 503);
    let log = log_of(other).await;
    assert!(log.contains("the key 2026-05, which is not in the key ring"), "{log}");

    let wrong = NEW_KEY.replace("2026-11", "2026-05");
    let wrong = with_keys(&launch, &wrong).start().await;
    assert_eq!(say(&wrong, "and?").await.status, 503);
    let log = log_of(wrong).await;
    assert!(log.contains("does not open with the key 2026-05"), "{log}");
    assert_eq!(upstream.request_count(), before, "nothing was asked without its history");

    say(&sealing, "and?").await.ok();
    assert_eq!(asked(&upstream), ["canary", "and?"], "who was refused broke nothing");
}

async fn keys_are_rotated_while_conversations_go_on(own: Own) {
    let upstream = Upstream::start().await.unwrap();
    let launch = own.launch(&upstream);
    let rings = [KEYS.to_owned(), format!("{KEYS}\n{NEW_KEY}"), format!("{NEW_KEY}\n{KEYS}")];
    let mut said = Vec::new();
    let mut running = Vec::new();
    // Last on every replica, then first: while it goes on, replicas with the ring before are still there.
    for ring in &rings {
        running.push(with_keys(&launch, ring).start().await);
        if running.len() > 2 {
            running.remove(0);
        }
        for replica in &running {
            said.push(format!("turn {}", said.len()));
            say(replica, said.last().unwrap()).await.ok();
            assert_eq!(asked(&upstream), said);
        }
    }
    let new_only = with_keys(&launch, NEW_KEY).start().await;
    assert_eq!(say(&new_only, "and?").await.status, 503, "the session has turns of the old key");
    let fresh = Post::chat(body(&[user("another")])).session("another");
    fresh.send(running.last().unwrap()).await.ok();
    fresh.send(&new_only).await.ok();
    assert_eq!(asked(&upstream), ["another", "another"], "a newer session does not need the old key");
}

async fn a_store_of_plain_turns_is_taken_over_when_that_is_asked_for(own: Own) {
    let upstream = Upstream::start().await.unwrap();
    let launch = own.launch(&upstream);
    say(&launch.sibling().start().await, "before").await.ok();
    let strict = with_keys(&launch, KEYS).start().await;
    assert_eq!(say(&strict, "and?").await.status, 503, "a plain turn among encrypted ones may be forged");
    let accepting = with_keys(&launch, KEYS).arg("--encryption-accept-plain").arg("true").start().await;
    say(&accepting, "after").await.ok();
    say(&accepting, "and on").await.ok();
    assert_eq!(asked(&upstream), ["before", "after", "and on"]);
}
