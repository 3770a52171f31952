//! `session-memory import`: conversations of LangChain and the OpenAI Agents SDK go on through the proxy.
//!
//! The sources are real ones: a `redis-server`, a SQLite file, and in [`packages`] what the packages themselves
//! write. `SESSION_MEMORY_IMPORT_KILLS` sets how often an import is killed; 10 by default.

mod faults;
mod owners;
mod packages;
mod support;

use crate::common::*;
use crate::servers::{Postgres, Redis};
use serde_json::json;
use support::*;

#[tokio::test]
async fn a_history_goes_on_through_the_proxy() {
    let redis = Redis::start();
    push(&redis, "kitchen", &[langchain("system", "Terse.")]);
    push(&redis, "kitchen", &exchanges(0..2));
    let upstream = Upstream::start().await.unwrap();
    let launch = Launch::new(&upstream.url());
    let done =
        import(&store_of(&launch), &["--from", &format!("langchain-{}", redis.url()), "--anonymous"]).await;
    assert_eq!((done.code, done.turns()), (Some(0), (2, 0)), "{done:?}");

    let proxy = launch.start().await;
    let answer = Post::chat(body(&[user("q2")])).session("kitchen").send(&proxy).await;
    assert_eq!(answer.status, 200);
    assert_eq!(seen(&upstream), ["Terse.", "q0", "a0", "q1", "a1", "q2"]);
    assert_eq!(proxy.stored("kitchen").await.len(), 3);
}

#[tokio::test]
async fn importing_again_adds_what_has_come_since_and_nothing_else() {
    let redis = Redis::start();
    let from = format!("langchain-{}", redis.url());
    push(&redis, "a", &exchanges(0..150));
    push(&redis, "b", &exchanges(0..1));
    push(&redis, "b", &[langchain("human", "q1")]);
    let launch = Launch::new("http://127.0.0.1:9");
    let store = store_of(&launch);
    let args = ["--from", from.as_str(), "--anonymous"];

    let dry = import(&store, &[&args[..], &["--dry-run"]].concat()).await;
    assert_eq!(dry.turns(), (151, 0), "{dry:?}");
    assert!(launch.stored(store::everybody, "a").await.is_empty(), "a dry run stores nothing");

    let first = import(&store, &args).await;
    assert_eq!((first.code, first.turns()), (Some(0), (151, 0)), "{first:?}");
    assert!(first.line("messages: ").contains("1 without a reply yet"), "{first:?}");
    let second = import(&store, &args).await;
    assert_eq!((second.code, second.turns()), (Some(0), (0, 151)), "{second:?}");

    push(&redis, "b", &[langchain("ai", "a1")]);
    push(&redis, "b", &exchanges(2..4));
    let third = import(&store, &[&args[..], &["--session", "b"]].concat()).await;
    assert_eq!((third.code, third.turns()), (Some(0), (3, 1)), "{third:?}");
    for (session, count) in [("a", 150), ("b", 4)] {
        let stored = launch.stored(store::everybody, session).await;
        assert_eq!(stored.iter().flat_map(Stored::texts).collect::<Vec<_>>(), texts_of(0..count));
    }
}

#[tokio::test]
async fn a_session_that_went_on_here_is_not_mixed_with_what_came_there() {
    let redis = Redis::start();
    let from = format!("langchain-{}", redis.url());
    let (upstream, proxy) = pair().await;
    let store = store_of(proxy.launch());
    let args = ["--from", from.as_str(), "--anonymous"];
    let ask = async |session: &str, text: &str| {
        let answer = Post::chat(body(&[user(text)])).session(session).send(&proxy).await;
        assert_eq!(answer.status, 200);
    };

    push(&redis, "imported", &exchanges(0..2));
    push(&redis, "occupied", &exchanges(0..2));
    ask("occupied", "mine").await;
    let first = import(&store, &args).await;
    assert_eq!((first.code, first.turns()), (Some(3), (2, 0)), "{first:?}");
    assert!(first.stderr.contains("session \"occupied\": skipped"), "{first:?}");

    ask("imported", "q2").await;
    assert_eq!(seen(&upstream)[..4], texts_of(0..2));
    let second = import(&store, &args).await;
    assert_eq!((second.code, second.turns()), (Some(3), (0, 2)), "only the occupied one is left: {second:?}");
    push(&redis, "imported", &exchanges(2..4));
    let third = import(&store, &args).await;
    assert_eq!((third.code, third.turns()), (Some(3), (0, 2)), "{third:?}");
    assert!(third.stderr.contains("session \"imported\": 2 turns are not imported"), "{third:?}");
    assert_eq!(proxy.stored("imported").await.len(), 3);
    assert_eq!(proxy.stored("occupied").await.len(), 1);
}

#[tokio::test]
async fn a_source_is_reached_over_tls_and_over_a_socket() {
    let plain = Redis::start();
    push(&plain, "s", &exchanges(0..1));
    let launch = Launch::new("http://127.0.0.1:9");
    let from = format!("langchain-unix:{}", plain.socket().display());
    let done = import(&store_of(&launch), &["--from", &from, "--anonymous"]).await;
    assert_eq!((done.code, done.turns()), (Some(0), (1, 0)), "{done:?}");

    let tls = Redis::tls(false);
    let url = format!("agents-rediss://127.0.0.1:{}", tls.port());
    let trusted = format!("{url}?tls_ca={}", tls.file("ca.pem"));
    let done = import(&store_of(&launch), &["--from", &trusted, "--anonymous"]).await;
    assert_eq!((done.code, done.turns()), (Some(0), (0, 0)), "{done:?}");
    let done = import(&store_of(&launch), &["--from", &url, "--anonymous"]).await;
    assert_eq!(done.code, Some(1), "a certificate of nobody known is refused: {done:?}");
}

#[tokio::test]
async fn a_session_of_which_only_the_newest_turns_are_kept_is_recognised() {
    let redis = Redis::start();
    let from = format!("langchain-{}", redis.url());
    push(&redis, "s", &exchanges(0..20));
    let launch = Launch::new("http://127.0.0.1:9");
    let args = ["--from", from.as_str(), "--anonymous", "--max-turns", "6"];
    let mut seen = Vec::new();
    for _ in 0..2 {
        seen.push(import(&store_of(&launch), &args).await.turns());
    }
    push(&redis, "s", &exchanges(20..22));
    seen.push(import(&store_of(&launch), &args).await.turns());
    assert_eq!(seen, [(20, 0), (0, 20), (2, 20)]);
    let stored = launch.stored(store::everybody, "s").await;
    assert_eq!(stored.iter().flat_map(Stored::texts).collect::<Vec<_>>(), texts_of(16..22));

    redis.cli(&["DEL", "message_store:s"]);
    push(&redis, "s", &exchanges(0..3));
    let untold = import(&store_of(&launch), &args).await;
    assert_eq!((untold.code, untold.turns()), (Some(3), (0, 0)), "nothing can be compared: {untold:?}");
}

#[tokio::test]
async fn what_cannot_be_read_is_named_and_the_rest_is_imported() {
    let redis = Redis::start();
    let from = format!("langchain-{}", redis.url());
    push(&redis, "kitchen", &exchanges(0..1));
    push(&redis, "kitchen", &["{\"type\":".to_owned(), langchain("hologram", "x")]);
    push(&redis, "kitchen", &exchanges(1..2));
    push(&redis, "not an id", &exchanges(0..1));
    redis.cli(&["SET", "message_store:other", "of another type"]);
    let launch = Launch::new("http://127.0.0.1:9");
    let done = import(&store_of(&launch), &["--from", &from, "--anonymous"]).await;
    assert_eq!((done.code, done.turns()), (Some(3), (2, 0)), "{done:?}");
    for line in [
        "session \"kitchen\", message 3: left out: it is no message in JSON",
        "session \"kitchen\", message 4: left out: nothing corresponds to its type \"hologram\"",
        "session \"not an id\": skipped: the session id holds a byte outside visible ASCII",
    ] {
        assert!(done.stderr.contains(line), "{line} is not in {}", done.stderr);
    }
    assert!(done.line("messages: ").starts_with("2 left out"), "{done:?}");
}

#[tokio::test]
async fn a_result_without_its_call_does_not_brick_a_session() {
    let redis = Redis::start();
    let calls = |ids: &[&str]| {
        let calls: Vec<_> = ids.iter().map(|id| json!({"id": id, "name": "look", "args": {}})).collect();
        json!({"type": "ai", "data": {"content": "", "tool_calls": calls, "type": "ai"}}).to_string()
    };
    let result =
        |id: &str| json!({"type": "tool", "data": {"content": "x", "tool_call_id": id, "type": "tool"}});
    push(&redis, "s", &[langchain("human", "q0"), calls(&["a", "b"]), result("a").to_string()]);
    push(&redis, "s", &[langchain("human", "q1"), calls(&["c"]), result("c").to_string()]);
    push(&redis, "s", &[langchain("ai", "a1"), result("d").to_string(), langchain("human", "q2")]);
    push(&redis, "s", &[langchain("ai", "a2")]);
    let upstream =
        Upstream::start_with(tower_session_memory::testing::upstream::refuse_unanswered_calls).await.unwrap();
    let launch = Launch::new(&upstream.url());
    let from = format!("langchain-{}", redis.url());
    let done = import(&store_of(&launch), &["--from", &from, "--anonymous"]).await;
    assert_eq!((done.code, done.turns()), (Some(3), (4, 0)), "{done:?}");
    let proxy = launch.start().await;
    let answer = Post::chat(body(&[user("q3")])).session("s").send(&proxy).await;
    assert_eq!(answer.status, 200, "a provider takes what is sent");
    assert_eq!(seen(&upstream), ["q1", "", "x", "a1", "q2", "a2", "q3"]);
}

#[tokio::test]
async fn sessions_of_the_agents_sdk_go_on_through_the_proxy() {
    let upstream = Upstream::start().await.unwrap();
    let launch = Launch::new(&upstream.url());
    let path = launch.dir().join("agents.db");
    let items = [
        json!({"role": "user", "content": "Look."}),
        json!({"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"}),
        json!({"type": "function_call_output", "call_id": "c", "output": "a tower"}),
        json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "A tower."}]}),
    ];
    let secret = [json!({"__enc__": 1, "v": 1, "kid": "hkdf-v1", "payload": "gAAAA"})];
    agents_file(&path, &[("kitchen", &items), ("secret", &secret)]);
    let from = format!("agents-sqlite:{}", path.display());
    for turns in [(2, 0), (0, 2)] {
        let done = import(&store_of(&launch), &["--from", &from, "--anonymous"]).await;
        assert_eq!((done.code, done.turns()), (Some(3), turns), "{done:?}");
        assert!(done.stderr.contains("session \"secret\": skipped: EncryptedSession"), "{done:?}");
    }
    let missing =
        import(&store_of(&launch), &["--from", &format!("{from}?table=other"), "--anonymous"]).await;
    assert_eq!(missing.code, Some(1), "{missing:?}");

    let proxy = launch.start().await;
    Post::chat(body(&[user("And?")])).session("kitchen").send(&proxy).await;
    assert_eq!(seen(&upstream), ["Look.", "", "a tower", "A tower.", "And?"]);
}

/// Five exchanges as the Agents SDK keeps them under a prefix of one's own.
fn agents_list(redis: &Redis) -> String {
    for (n, role) in (0..5).flat_map(|n| [(n, "user"), (n, "assistant")]) {
        let item = json!({"role": role, "content": format!("{}{n}", if role == "user" { "q" } else { "a" })});
        redis.cli(&["RPUSH", "mine:kitchen:messages", &item.to_string()]);
    }
    redis.cli(&["HSET", "mine:kitchen", "session_id", "kitchen"]);
    format!("agents-{}?prefix=mine", redis.url())
}

/// Imports twice into a store, and goes on there.
async fn goes_on_in(store: &str, from: &str, settings: &[(&str, &str)]) {
    for turns in [(5, 0), (0, 5)] {
        let mut importer = command(store, &["--from", from, "--anonymous"]);
        let done = ended(importer.envs(settings.iter().copied()).spawn().unwrap()).await;
        assert_eq!((done.code, done.turns()), (Some(0), turns), "{done:?}");
    }
    let upstream = Upstream::start().await.unwrap();
    let launch = Launch::new(&upstream.url()).store(store);
    let proxy = settings.iter().fold(launch, |launch, (name, value)| launch.env(name, value)).start().await;
    Post::chat(body(&[user("q5")])).session("kitchen").send(&proxy).await;
    assert_eq!(seen(&upstream)[..10], texts_of(0..5));
}

#[tokio::test]
async fn a_list_that_is_kept_oldest_first_goes_on_in_redis_encrypted_and_compressed() {
    let redis = Redis::start();
    let keys = format!("k {}=", "A".repeat(43));
    let settings = [("SESSION_MEMORY_ENCRYPTION_KEY", keys.as_str()), ("SESSION_MEMORY_COMPRESS", "true")];
    goes_on_in(&format!("{}/3", redis.url()), &agents_list(&redis), &settings).await;
    let kept = redis.cli(&["-n", "3", "--scan", "--pattern", "*kitchen*"]);
    let kept: String = kept.lines().map(|key| redis.cli(&["-n", "3", "GET", key])).collect();
    assert!(kept.contains("\"coding\""), "{kept}");
    assert!(!kept.contains("\"q0\""), "what is imported is encrypted");
}

#[tokio::test]
async fn a_list_goes_on_in_postgres() {
    let (redis, postgres) = (Redis::start(), Postgres::start());
    goes_on_in(&postgres.url(), &agents_list(&redis), &[]).await;
}
