//! What users say, their credentials and the ids of their sessions: none of these may show up
//! where operators look, and a credential nowhere at all. Marked texts go through every path of the proxy, the
//! failing ones too, at the most talkative log level, and then they are searched for.

use std::path::Path;

use crate::common::*;
use http::StatusCode;
use rusqlite::Connection;
use serde_json::json;

/// In every message, instruction, tool call, query and refused header.
const CONTENT: &str = "canary-content-7f3a";
/// In every credential.
const CREDENTIAL: &str = "canary-credential-91be";
/// In every session id.
const SESSION: &str = "canary-session-c04d";

const SETTINGS: &str = r#"
window_turns = 2
max_request_body = "64 KiB"
max_reply = "16 KiB"
max_event = "8 KiB"
"#;

/// For a proxy whose store is busy: the end of a reply waits hardly, and one turn at most is waiting.
const IMPATIENT: [&str; 4] = ["--commit-wait", "50ms", "--append-queue-turns", "1"];

/// What the flows left behind.
struct Traces {
    log: String,
    metrics: String,
    /// The bodies of the proxy's own errors, and the `session-memory` header of every answer.
    told: String,
    /// The database with its write-ahead log, before and after the end.
    stored: Vec<u8>,
}

#[tokio::test]
async fn no_content_credential_or_session_id_shows_in_logs_metrics_or_errors() {
    let traces = traces().await;
    for canary in [CONTENT, CREDENTIAL, SESSION] {
        assert_absent(canary, "the log", &traces.log);
        assert_absent(canary, "the metrics", &traces.metrics);
        assert_absent(canary, "an error or header of ours", &traces.told);
    }
    // The search means something only if there was something to be found.
    assert!(holds(&traces.stored, CONTENT) && holds(&traces.stored, SESSION), "the flows stored turns");
    assert!(traces.log.contains("TRACE"), "the log is as talkative as can be");
}

#[tokio::test]
async fn no_credential_is_ever_in_the_store() {
    let traces = traces().await;
    assert!(holds(&traces.stored, CONTENT), "the flows stored turns");
    assert!(!holds(&traces.stored, CREDENTIAL), "a credential is in the database");
}

#[tokio::test]
async fn every_bypass_skip_trim_and_fault_is_logged_and_counted() {
    let traces = traces().await;
    for line in [
        "forwarded without memory",
        "request rejected",
        "the oldest messages",
        "reply not recorded",
        "the upstream broke off",
        "the client left before",
        "the turn was not stored within the commit wait",
        "a turn could not be stored and is lost",
        "the session store failed",
        "the session store answered with another session's record",
    ] {
        assert!(traces.log.contains(line), "the log never says {line:?}:\n{}", traces.log);
    }
    for counter in [
        r#"requests_total{status="new",client="new"}"#,
        r#"requests_total{status="hit",client="delta"}"#,
        r#"bypassed_total{status="bypass",reason="off"}"#,
        r#"bypassed_total{status="bypass",reason="prefill"}"#,
        r#"bypassed_total{status="bypass",reason="not_json"}"#,
        r#"bypassed_total{status="bypass",reason="signed"}"#,
        r#"rejected_total{code="invalid_session_id"}"#,
        r#"rejected_total{code="invalid_request"}"#,
        r#"rejected_total{code="request_too_large"}"#,
        r#"rejected_total{code="unsupported_encoding"}"#,
        r#"rejected_total{code="session_store_unavailable"}"#,
        "trimmed_total",
        r#"unrecorded_total{reason="status"}"#,
        r#"unrecorded_total{reason="read"}"#,
        r#"unrecorded_total{reason="error_frame"}"#,
        r#"unrecorded_total{reason="too_large"}"#,
        r#"unrecorded_total{reason="upstream_broke"}"#,
        r#"disconnects_total{kept="true"}"#,
        r#"unacknowledged_total{delivered="true"}"#,
        r#"turns_total{outcome="stored"}"#,
        r#"turns_total{outcome="lost"}"#,
        r#"store_errors_total{operation="load",kind="corrupt"}"#,
        r#"foreign_records_total{operation="load"}"#,
        "load_seconds_count",
        "commit_seconds_count",
    ] {
        let counter = format!("session_memory_{counter} ");
        let found = traces.metrics.lines().find_map(|line| line.strip_prefix(&counter));
        let count: f64 =
            found.unwrap_or_else(|| panic!("no {counter}:\n{}", traces.metrics)).parse().unwrap();
        assert!(count > 0.0, "{counter}{count}");
    }
}

/// Runs every flow through two proxies on one store, and gathers what they left.
async fn traces() -> Traces {
    let (upstream, proxy) = pair_with(|launch| talkative(launch).config(SETTINGS)).await;
    let launch = proxy.launch().clone();
    let mut told = String::new();
    conversations(&upstream, &proxy, &mut told).await;
    refusals(&upstream, &proxy, &mut told).await;
    broken_replies(&upstream, &proxy, &mut told).await;
    let store = format!("sqlite:{}", launch.store_path().display());
    let impatient = talkative(Launch::new(&upstream.url()).store(&store));
    let impatient = IMPATIENT.into_iter().fold(impatient, Launch::arg).start().await;
    store_faults(&proxy, &impatient, &launch.store_path(), &mut told).await;

    let metrics = metrics(&proxy).await + &metrics(&impatient).await;
    upstream.stop().await;
    let unreachable = said("unreachable", "there?").send(&proxy).await;
    assert_eq!(unreachable.status, 502);
    ours(&unreachable, &mut told);

    let mut stored = bytes_of(&launch.store_path());
    let mut log = String::new();
    for proxy in [proxy, impatient] {
        proxy.terminate();
        log.push_str(&proxy.ended().await.log);
    }
    stored.extend(bytes_of(&launch.store_path()));
    Traces { log, metrics, told, stored }
}

fn talkative(launch: Launch) -> Launch {
    launch.env("RUST_LOG", "trace").arg("--admin").arg("127.0.0.1:0")
}

/// Turns that succeed, as JSON and as streams, with instructions, tools, a window, and without memory.
async fn conversations(upstream: &Upstream, proxy: &Proxy, told: &mut String) {
    let instructed = [system(CONTENT), user(CONTENT)];
    ours(&post("talk", body(&instructed)).send(proxy).await.ok(), told);
    for turn in 0..3 {
        let words = [user(&format!("{CONTENT} {turn}"))];
        ours(&post("talk", stream_body(&words)).send(proxy).await.ok(), told);
    }
    upstream.push(Reply::tool_call("call-1", "look", &json!({"for": CONTENT}).to_string()));
    ours(&said("tools", "look it up").send(proxy).await.ok(), told);
    ours(&post("tools", body(&[result("call-1", CONTENT)])).send(proxy).await.ok(), told);
    for control in ["read", "append", "reset", "off"] {
        ours(&said("talk", control).control(control).send(proxy).await.ok(), told);
    }
    ours(&post("talk", body(&[user("go on"), assistant(CONTENT)])).send(proxy).await.ok(), told);
    ours(&post("talk", format!("{{\"messages\":[{CONTENT}")).send(proxy).await.ok(), told);
    let query = format!("/v1/chat/completions?user={CONTENT}");
    ours(&said("talk", "by query").path(&query).send(proxy).await.ok(), told);
    let signature = format!("AWS4-HMAC-SHA256 Credential={CREDENTIAL}");
    let signed = Post::chat(body(&[user(CONTENT)])).session(SESSION).header("authorization", signature);
    ours(&signed.send(proxy).await.ok(), told);
    for name in ["x-api-key", "api-key"] {
        let keyed = Post::chat(body(&[user(CONTENT)])).session(SESSION).header(name, CREDENTIAL);
        ours(&keyed.send(proxy).await.ok(), told);
    }
}

/// Requests that the proxy answers itself.
async fn refusals(upstream: &Upstream, proxy: &Proxy, told: &mut String) {
    let before = upstream.request_count();
    let large = body(&[user(&CONTENT.repeat(10_000))]);
    let chat = || Post::chat(body(&[user(CONTENT)])).header("authorization", format!("Bearer {CREDENTIAL}"));
    for (request, status) in [
        (chat().session(&format!("{SESSION} with a space")), 400),
        (chat().session(&SESSION.repeat(10)), 400),
        (chat().session(SESSION).session(&format!("{SESSION}-2")), 400),
        (said("refused", "hi").control(CONTENT), 400),
        (said("refused", "hi").header("content-encoding", "gzip"), 400),
        (said("refused", "hi").header("content-encoding", CONTENT), 415),
        (post("refused", large.clone()), 413),
        (post("refused", large).chunked(), 413),
        (said("refused", "hi").header("expect", CONTENT), 417),
    ] {
        let answer = request.send(proxy).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        ours(&answer, told);
    }
    assert_eq!(upstream.request_count(), before, "none of them went on");
}

/// Replies that are forwarded and not recorded, and a client that leaves.
async fn broken_replies(upstream: &Upstream, proxy: &Proxy, told: &mut String) {
    let word = || Chunk::delta(&json!({"role": "assistant", "content": CONTENT}));
    let error = format!("data: {{\"error\":{{\"message\":\"{CONTENT}\"}}}}\n\n");
    for reply in [
        Reply::error(StatusCode::INTERNAL_SERVER_ERROR, CONTENT),
        Reply::chunks([word()]).then(Step::Send(error.into())).done(),
        Reply::chunks([word()]).then(Step::Send(format!("data: {CONTENT}\n\n").into())).done(),
        Reply::chunks([word()]).done(),
        Reply::chunks([word()]).then(Step::Cut),
        Reply::text(&CONTENT.repeat(1_000)),
        Reply::stream(&CONTENT.repeat(1_000)),
    ] {
        upstream.push(reply);
        let answer = post("broken", stream_body(&[user(CONTENT)])).send(proxy).await;
        told.push_str(answer.header("session-memory").expect("it says what was done"));
    }
    upstream.push(Reply::chunks([word()]).held_open());
    let mut left = post("left", stream_body(&[user(CONTENT)])).start(proxy).await;
    left.read_until(CONTENT).await;
    drop(left);
    within("the client to be missed", async {
        while !proxy.log().contains("the client left before") {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// A store that is busy, so that one turn waits and the next finds no room, and one that is damaged.
async fn store_faults(patient: &Proxy, impatient: &Proxy, store: &Path, told: &mut String) {
    let file = Connection::open(store).unwrap();
    // Where there is room for one turn, the next may find none although this one can be seen in the file.
    for session in ["damaged", "mistaken"] {
        ours(&said(session, "hi").send(patient).await.ok(), told);
        stored(&file, session).await;
    }
    file.execute_batch("BEGIN IMMEDIATE").unwrap();
    for session in ["late", "lost"] {
        ours(&said(session, "hi").send(impatient).await.ok(), told);
    }
    file.execute_batch("ROLLBACK").unwrap();
    stored(&file, "late").await;
    let garbage = format!("{{\"v\":\"{CONTENT}\",\"id\":{CONTENT}\n{CONTENT}");
    let damaged = file.execute(
        "UPDATE turns SET record = ?1 WHERE session = (SELECT row FROM sessions WHERE id = ?2)",
        (garbage.as_bytes(), id("damaged")),
    );
    assert_eq!(damaged.unwrap(), 1);
    let mistaken = file.execute(
        "UPDATE turns SET record = (SELECT t.record FROM turns t JOIN sessions s ON t.session = s.row WHERE s.id = ?1)
         WHERE session = (SELECT row FROM sessions WHERE id = ?2)",
        (id("late"), id("mistaken")),
    );
    assert_eq!(mistaken.unwrap(), 1);
    for session in ["damaged", "mistaken"] {
        let answer = said(session, "again").send(impatient).await;
        assert_eq!(answer.status, 503);
        ours(&answer, told);
    }
}

/// Waits until the session has a turn.
async fn stored(file: &Connection, session: &str) {
    let count = "SELECT coalesce(sum(count), 0) FROM sessions WHERE id = ?1";
    within("a turn to be stored", async {
        while file.query_row(count, [id(session)], |row| row.get::<_, i64>(0)).unwrap() == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
}

fn id(session: &str) -> String {
    format!("{SESSION}-{session}")
}

/// A request with every canary in it.
fn post(session: &str, body: impl Into<Vec<u8>>) -> Post {
    Post::chat(body).session(&id(session)).header("authorization", format!("Bearer {CREDENTIAL}"))
}

fn said(session: &str, text: &str) -> Post {
    post(session, body(&[user(&format!("{CONTENT} {text}"))]))
}

/// Keeps what the proxy itself says in an answer: everything of an error, and its header.
fn ours(answer: &Answer, told: &mut String) {
    told.push_str(answer.header("session-memory").unwrap_or_default());
    if answer.status >= 400 {
        told.push_str(&answer.text());
        // The session's id is in its own header, and nowhere else.
        let headers = answer.headers.iter().filter(|(name, _)| name != "x-session-id");
        told.extend(headers.flat_map(|(name, value)| [name.as_str(), value.as_str()]));
    }
    told.push('\n');
}

async fn metrics(proxy: &Proxy) -> String {
    proxy.ask_admin("/metrics").await.ok().text()
}

/// The database and its write-ahead log, as they are now.
fn bytes_of(path: &Path) -> Vec<u8> {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let mut bytes = std::fs::read(path).unwrap();
    bytes.extend(std::fs::read(log).unwrap_or_default());
    bytes
}

fn holds(bytes: &[u8], text: &str) -> bool {
    memchr::memmem::find(bytes, text.as_bytes()).is_some()
}

#[track_caller]
fn assert_absent(canary: &str, place: &str, text: &str) {
    let found = text.lines().find(|line| line.contains(canary));
    assert!(found.is_none(), "{canary} is in {place}: {}", found.unwrap_or_default());
}
