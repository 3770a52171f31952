//! The wrappers around the proxy's store, and the tables of PostgreSQL's, through the binary.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;
mod servers;

use common::*;
use servers::Postgres;
use tokio::task::JoinSet;

const KEYS: &str = "2026-05 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

async fn say(proxy: &Proxy, text: &str) -> Answer {
    Post::chat(body(&[user(text)])).session("s").send(proxy).await
}

/// Everything that a proxy wrote until it ended.
async fn log_of(proxy: Proxy) -> String {
    proxy.terminate();
    proxy.ended().await.log
}

/// What stands in the store's directory.
fn on_disk(launch: &Launch) -> Vec<u8> {
    let files = std::fs::read_dir(launch.dir()).unwrap();
    files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn replicas_with_caches_and_all_wrappers_behave_like_one() {
    let upstream = Upstream::start().await.unwrap();
    let launch = Launch::new(&upstream.url());
    std::fs::write(launch.dir().join("keys"), KEYS).unwrap();
    let launch = launch.arg("--encryption-key-file").arg("keys").arg("--compress").arg("true");
    let replicas =
        [launch.clone().start().await, launch.sibling().start().await, launch.sibling().start().await];
    let mut expected = Vec::new();
    for round in 0..30_usize {
        let text = format!("canary {round} {}", "and so on ".repeat(100 * (round % 2)));
        // Each replica follows each, itself included.
        say(&replicas[(round * round / 3 + round) % 3], &text).await.ok();
        expected.push(text);
        let seen = texts(&upstream.requests().last().unwrap().messages());
        let asked: Vec<String> = seen.into_iter().step_by(2).collect();
        assert_eq!(asked, expected, "round {round}: every turn whose end the client saw");
    }
    let dump = on_disk(&launch);
    assert!(dump.len() > 10_000, "the store's files are what is looked at");
    assert!(!holds(&dump, "canary") && !holds(&dump, "assistant"), "what was said can be read in the store");
    for replica in replicas {
        let log = log_of(replica).await;
        assert!(!log.contains("canary"), "{log}");
    }
}

#[tokio::test]
async fn a_session_whose_key_is_not_there_is_refused_and_the_key_named() {
    let (upstream, sealing) = pair_with(|launch| launch.env("SESSION_MEMORY_ENCRYPTION_KEY", KEYS)).await;
    say(&sealing, "canary").await.ok();
    let launch = sealing.launch().clone();
    let asked = upstream.requests().len();

    let without = launch.sibling().start().await;
    let answer = say(&without, "and?").await;
    assert_eq!((answer.status, answer.code()), (503, "session_store_unavailable".to_owned()));
    let log = log_of(without).await;
    assert!(log.contains("compressed or encrypted"), "{log}");

    let other = KEYS.replace("2026-05", "2026-11");
    let other = launch.sibling().env("SESSION_MEMORY_ENCRYPTION_KEY", &other).start().await;
    assert_eq!(say(&other, "and?").await.status, 503);
    let log = log_of(other).await;
    assert!(log.contains("the key 2026-05, which is not in the key ring"), "{log}");
    assert_eq!(upstream.requests().len(), asked, "nothing was asked without its history");
}

#[tokio::test]
async fn a_store_of_plain_turns_is_taken_over_when_that_is_asked_for() {
    let (upstream, plain) = pair().await;
    say(&plain, "before").await.ok();
    let launch = plain.launch().sibling().env("SESSION_MEMORY_ENCRYPTION_KEY", KEYS);
    let strict = launch.clone().start().await;
    assert_eq!(say(&strict, "and?").await.status, 503, "a plain turn among encrypted ones may be forged");
    let accepting = launch.arg("--encryption-accept-plain").arg("true").start().await;
    say(&accepting, "after").await.ok();
    say(&accepting, "and on").await.ok();
    let seen = texts(&upstream.requests().last().unwrap().messages());
    let asked: Vec<&String> = seen.iter().step_by(2).collect();
    assert_eq!(asked, ["before", "after", "and on"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_start_at_once_on_an_empty_database_share_it() {
    const REPLICAS: usize = 20;
    let (server, upstream) = (Postgres::start(), Upstream::start().await.unwrap());
    let launch = Launch::new(&upstream.url()).store(&server.url());
    let starting: JoinSet<Proxy> = (0..REPLICAS).map(|_| launch.sibling().start()).collect();
    let replicas = starting.join_all().await;
    for (round, replica) in replicas.iter().enumerate() {
        let answer = say(replica, &round.to_string()).await.ok();
        let turns = answer.told("turns");
        assert_eq!(turns.parse(), Ok(round), "each replica sees the turns of all others");
    }
    assert_eq!(server.psql("SELECT count(*) FROM session_memory.schema_version"), "1");
    assert_eq!(server.psql("SELECT count(*) FROM session_memory.turns"), REPLICAS.to_string());
}

#[tokio::test]
async fn a_database_that_a_later_version_migrated_is_refused() {
    let (server, upstream) = (Postgres::start(), Upstream::start().await.unwrap());
    let launch = Launch::new(&upstream.url()).store(&server.url());
    launch.sibling().start().await.kill().await;
    server.psql("INSERT INTO session_memory.schema_version (version) VALUES (99)");
    for migrate in ["true", "false"] {
        let ended = launch.sibling().arg("--store-migrate").arg(migrate).run_to_end().await;
        assert!(!ended.status.success(), "{ended:?}");
        assert!(ended.log.contains("schema version 99; this program knows 1 at most"), "{ended:?}");
        assert!(!ended.log.contains(servers::PASSWORD), "{ended:?}");
    }
}
