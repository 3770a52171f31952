//! Passwords in the URLs of stores: whatever goes wrong, and however talkative the log, they are not shown. Nor is
//! what is said in sessions.

use std::{process::Stdio, time::Instant};

use tokio::process::Command;

use crate::{
    common::*,
    place::{CLUSTER, Kind, Place, TLS, WATCHED},
    served,
    servers::{Postgres, Redis},
};

/// Every password and user name of these tests; some of it must be escaped in a URL.
const SECRET: &str = "canary-p@ss:w/rd%";
/// The same as a URL holds it.
const ESCAPED: &str = "canary-p%40ss%3Aw%2Frd%25";
/// The part that must be nowhere: the same whether escaped or not.
const CANARY: &str = "canary-p";
/// What is said in the session.
const CONTENT: &str = "canary-content";
const SESSION: &str = "canary-session";
const CREDENTIAL: &str = "canary-credential";

/// What `serve` and `check` say of a store that cannot be used.
async fn said_of(url: &str) -> String {
    let upstream = Upstream::start().await.unwrap();
    let launch = Launch::new(&upstream.url()).store(url).env("RUST_LOG", "trace");
    let ended = launch.run_to_end().await;
    assert_eq!(ended.status.code(), Some(1), "{url}: {}", ended.log);
    ended.log + &checked(url).await
}

/// What `check` prints, with the store from the environment.
async fn checked(url: &str) -> String {
    let mut check = Command::new(env!("CARGO_BIN_EXE_session-memory"));
    check.args(["check", "--upstream", "http://127.0.0.1:1"]).env("SESSION_MEMORY_STORE", url);
    let output = check.env("RUST_LOG", "trace").stdin(Stdio::null()).output().await.unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

#[track_caller]
fn assert_absent(canary: &str, place: &str, text: &str) {
    // Drivers print what they send as bytes, too.
    let bytes = canary.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
    let found = text.lines().find(|line| line.contains(canary) || line.contains(&bytes));
    assert!(found.is_none(), "{canary} is in {place}: {}", found.unwrap_or_default());
}

/// What `check` says of a configuration file.
async fn checked_file(toml: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    std::fs::write(&path, toml).unwrap();
    let mut check = Command::new(env!("CARGO_BIN_EXE_session-memory"));
    let output = check.arg("check").arg("--config").arg(path).stdin(Stdio::null()).output().await.unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

#[tokio::test]
async fn a_url_that_cannot_be_used_is_not_repeated_wherever_it_stands() {
    for url in [
        format!("redis-cluster://:{ESCAPED}@host/1"),
        format!("redis://:{SECRET}@host"),
        format!("mysql://user:{ESCAPED}@host/db"),
    ] {
        let said = checked(&url).await;
        assert!(said.contains("SESSION_MEMORY_STORE"), "{said}");
        assert_absent(CANARY, "what is said of the environment", &said);
        for line in
            [format!("store = \"{url}\""), format!("\"store\"='{url}'"), format!("upstream = \"{url}\"")]
        {
            let said = checked_file(&line).await;
            assert!(said.contains("line 1"), "{said}");
            assert_absent(CANARY, "what is said of a file", &said);
        }
    }
    let upstream = format!("http://user:{ESCAPED}@host");
    let mut serve = Command::new(env!("CARGO_BIN_EXE_session-memory"));
    let output = serve.args(["serve", "--upstream", &upstream]).output().await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("--upstream"), "{said}");
    assert_absent(CANARY, "what is said of a flag", &said);
}

/// A store that refuses: the secret is nowhere, and what is said is of use.
async fn refused(url: &str, says: &str) {
    let until = Instant::now() + LIMIT;
    loop {
        let said = said_of(url).await;
        assert_absent(CANARY, &format!("what is said of {url}"), &said);
        if said.contains(says) {
            return;
        }
        // On a busy machine it may take longer to find out.
        assert!(Instant::now() < until, "{url}: it does not say {says:?}: {said}");
    }
}

#[tokio::test]
async fn no_error_of_redis_shows_a_password() {
    let server = Redis::start_with(&["--requirepass", "another"]);
    let (tls, closed) = (TLS.port(), crate::servers::free_port());
    let port = server.port();
    refused(&format!("redis://{ESCAPED}:{ESCAPED}@127.0.0.1:{port}"), &format!("127.0.0.1:{port}")).await;
    refused(&format!("redis://:{ESCAPED}@127.0.0.1:{port}/3"), "127.0.0.1").await;
    refused(&format!("redis://:{ESCAPED}@127.0.0.1:{closed}"), "127.0.0.1").await;
    refused(&format!("redis://:{ESCAPED}@no-such-host.invalid"), "no-such-host.invalid").await;
    refused(&format!("rediss://:{ESCAPED}@127.0.0.1:{port}"), "127.0.0.1").await;
    refused(&format!("rediss://:{ESCAPED}@127.0.0.1:{tls}"), "certificate").await;
    refused(&format!("rediss://:{ESCAPED}@127.0.0.1:{tls}?tls_ca=/not/there/ca.pem"), "ca.pem").await;
    refused(&format!("redis://127.0.0.1:{port}?{CANARY}={ESCAPED}"), "query").await;
    refused(&format!("redis://:{SECRET}@127.0.0.1:{port}"), "%").await;
}

#[tokio::test]
async fn no_error_of_a_cluster_shows_a_password() {
    let node = CLUSTER.nodes[0].address();
    let closed = crate::servers::free_port();
    refused(&format!("redis-cluster://{ESCAPED}:{ESCAPED}@{node}"), &node.to_string()).await;
    refused(&format!("redis-cluster://:{ESCAPED}@127.0.0.1:{closed}"), "127.0.0.1").await;
    refused(&format!("rediss-cluster://:{ESCAPED}@{node}"), &node.to_string()).await;
    refused(&format!("redis-cluster://:{ESCAPED}@{node}/1"), "database").await;
}

#[tokio::test]
async fn no_error_of_sentinels_shows_a_password() {
    let sentinel = WATCHED.sentinels[0].address();
    let closed = crate::servers::free_port();
    let sentinels = format!("sentinel_user={ESCAPED}&sentinel_password={ESCAPED}");
    refused(&format!("redis-sentinel://{ESCAPED}:{ESCAPED}@{sentinel}/main"), "/main").await;
    refused(&format!("redis-sentinel://{sentinel}/main?{sentinels}"), "/main").await;
    refused(&format!("redis-sentinel://:{ESCAPED}@127.0.0.1:{closed}/main?{sentinels}"), "/main").await;
    refused(&format!("redis-sentinel://:{ESCAPED}@{sentinel}/other"), "/other").await;
    refused(&format!("rediss-sentinel://:{ESCAPED}@{sentinel}/main"), "/main").await;
}

#[tokio::test]
async fn no_error_of_postgres_shows_a_password() {
    let server = Postgres::start();
    server.psql(&format!("CREATE ROLE guarded LOGIN PASSWORD '{CANARY}-right'"));
    let (port, closed) = (server.port(), crate::servers::free_port());
    refused(&format!("postgres://guarded:{ESCAPED}@127.0.0.1:{port}/postgres"), "28P01").await;
    refused(&format!("postgres://postgres:{ESCAPED}@127.0.0.1:{port}/no_such_database"), "3D000").await;
    refused(&format!("postgres://guarded:{ESCAPED}@127.0.0.1:{closed}/postgres"), "connect").await;
    refused(&format!("postgres://guarded:{ESCAPED}@no-such-host.invalid/postgres?sslmode=disable"), "").await;
    let tls = format!("postgres://guarded:{ESCAPED}@127.0.0.1:{port}/postgres?sslmode=require");
    refused(&tls, "TLS").await;
    refused(&format!("postgres://guarded:{ESCAPED}@127.0.0.1:{port}/postgres?{CANARY}=1"), "option").await;
    refused(&format!("postgres:///postgres?password={ESCAPED}"), "host").await;
    refused(&format!("postgres://guarded:{SECRET}@127.0.0.1:{port}/postgres"), "").await;
    let guarded = format!("postgres://guarded:{CANARY}-right@127.0.0.1:{port}/postgres");
    refused(&guarded, "42501").await;
}

on_store!(redis = Redis, (): at_work_nothing_of_a_session_and_no_secret_is_told);
on_store!(redis_tls = RedisTls, (): at_work_nothing_of_a_session_and_no_secret_is_told);
on_store!(redis_cluster = RedisCluster, (): at_work_nothing_of_a_session_and_no_secret_is_told);
on_store!(redis_sentinel = RedisSentinel, (): at_work_nothing_of_a_session_and_no_secret_is_told);
on_store!(postgres = Postgres, (): at_work_nothing_of_a_session_and_no_secret_is_told);

/// The most talkative log, metrics, errors and `check`, of a store with a password, at work and then locked out.
async fn at_work_nothing_of_a_session_and_no_secret_is_told(on: Kind) {
    let place = Place::new(on).await;
    let upstream = Upstream::start().await.unwrap();
    // Only this role is asked for its password: see `servers::Postgres`.
    let who = if on == Kind::Postgres { "guarded" } else { "canary-p-user" };
    place.admit(who, SECRET);
    let guarded = place.url_of(&format!("{who}:{ESCAPED}"));
    let launch = place.launch(&upstream).store(&guarded).env("RUST_LOG", "trace");
    let launch = launch.arg("--admin").arg("127.0.0.1:0").arg("--load-timeout").arg("500ms");
    let proxy = launch.start().await;
    let post = |text: &str| {
        let messages = [system(CONTENT), user(&format!("{CONTENT} {text}"))];
        let post = Post::chat(stream_body(&messages)).session(SESSION);
        post.header("authorization", format!("Bearer {CREDENTIAL}"))
    };
    for text in ["one", "two", "three"] {
        let answer = served(async || post(text).send(&proxy).await).await;
        assert!(answer.said().contains(text), "{}", answer.text());
    }
    let mut told = served(async || proxy.ask_admin("/readyz").await).await.text();
    place.lock_out(who);
    within("the store to refuse", async {
        loop {
            let answer = post("refused").send(&proxy).await;
            if answer.status == 503 {
                told += &answer.text();
                return;
            }
        }
    })
    .await;
    told += &proxy.ask_admin("/readyz").await.text();
    told += &proxy.ask_admin("/metrics").await.ok().text();
    proxy.terminate();
    let log = proxy.ended().await.log;
    assert!(log.contains("TRACE"), "the log is as talkative as can be");
    for canary in [CONTENT, SESSION, CREDENTIAL, CANARY] {
        assert_absent(canary, "the log", &log);
    }
    let checked = checked(&guarded).await;
    assert!(checked.contains("The settings are valid."), "{checked}");
    assert_absent(CANARY, "what check prints", &checked);
    assert_absent(CANARY, "what is told", &told);
    for canary in [SESSION, CREDENTIAL] {
        assert_absent(canary, "the metrics and the errors", &told);
    }
}
