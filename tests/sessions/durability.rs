//! What an acknowledgement is worth, by the server's own settings: shown at the start and by `/readyz`, enforced by
//! `require_durability`. And `/readyz` when the store falls silent.

use serde_json::{Value, json};

use crate::{
    common::*,
    place::{CLUSTER, WATCHED},
    served,
    servers::{Cluster, Postgres, Redis},
};

/// A proxy on this store.
async fn launch(store: &str) -> (Upstream, Launch) {
    let upstream = Upstream::start().await.unwrap();
    let launch = Launch::new(&upstream.url()).store(store).arg("--admin").arg("127.0.0.1:0");
    (upstream, launch)
}

async fn ready(proxy: &Proxy) -> (u16, Value) {
    let answer = proxy.ask_admin("/readyz").await;
    (answer.status, answer.json())
}

/// What it says once it is ready.
async fn once_ready(proxy: &Proxy) -> Value {
    served(async || proxy.ask_admin("/readyz").await).await.json()
}

/// The store tells this level, everywhere, and the proxy does not start where more is required.
#[track_caller]
fn offers(store: &str, level: &str) -> impl Future<Output = ()> {
    let (store, level) = (store.to_owned(), level.to_owned());
    let place = std::panic::Location::caller();
    async move {
        let (_upstream, launch) = launch(&store).await;
        let proxy = launch.clone().start().await;
        let told = format!("durability={level}");
        assert!(proxy.ready().ends_with(&told), "{place}: {}", proxy.ready());
        let body = once_ready(&proxy).await;
        let expected = json!({"ready": true, "draining": false, "durability": level});
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(&body[name], value, "{place}: {name}");
        }
        drop(proxy);
        let levels = ["none", "process", "about-1s", "fsync", "replicated"];
        let known = levels.iter().position(|known| *known == level);
        for (place_of, required) in levels.iter().enumerate() {
            let launch = launch.clone().arg("--require-durability").arg(required);
            // What nothing is required of need not be known.
            if known.is_some_and(|known| place_of <= known) || *required == "none" {
                if Some(place_of) == known {
                    launch.start().await;
                }
                continue;
            }
            let ended = launch.run_to_end().await;
            assert_eq!(ended.status.code(), Some(1), "{place}: {required}: {}", ended.log);
            let said = format!("offers durability {level}, and require_durability asks for {required}");
            assert!(ended.log.contains(&said), "{place}: {}", ended.log);
        }
    }
}

#[tokio::test]
async fn memory_offers_nothing() {
    offers("memory", "none").await;
}

#[tokio::test]
async fn a_file_of_sqlite_is_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    offers(&format!("sqlite:{}", directory.path().join("s.db").display()), "fsync").await;
}

#[tokio::test]
async fn redis_offers_what_its_append_only_file_does() {
    let server = Redis::start();
    let set = |name: &str, value: &str| assert_eq!(server.cli(&["config", "set", name, value]), "OK");
    offers(&server.url(), "none").await;
    set("appendonly", "yes");
    offers(&server.url(), "about-1s").await;
    set("appendfsync", "no");
    offers(&server.url(), "process").await;
    set("appendfsync", "always");
    offers(&server.url(), "fsync").await;
    set("maxmemory-policy", "allkeys-lru");
    set("maxmemory", "1gb");
    offers(&server.url(), "none").await;
    set("maxmemory-policy", "noeviction");
    let replica = Redis::start_with(&["--replicaof", &format!("127.0.0.1 {}", server.port())]);
    crate::servers::wait_until("the replica", || server.cli(&["wait", "1", "1000"]) == "1");
    offers(&format!("{}?wait_replicas=1", server.url()), "replicated").await;
    drop(replica);
}

#[tokio::test]
async fn of_several_servers_the_weakest_counts() {
    offers(&CLUSTER.url(), "about-1s").await;
    offers(&WATCHED.url(), "about-1s").await;
}

#[tokio::test]
async fn redis_without_a_file_is_a_warning() {
    let server = Redis::start();
    let (_upstream, launch) = launch(&server.url()).await;
    let log = launch.start().await.log();
    assert!(log.contains("WARNING: store=redis without an append-only file"), "{log}");
}

#[tokio::test]
async fn a_redis_that_evicts_is_a_warning() {
    let args = ["--appendonly", "yes", "--maxmemory", "1gb", "--maxmemory-policy", "volatile-lru"];
    let server = Redis::start_with(&args);
    let (_upstream, launch) = launch(&server.url()).await;
    let log = launch.start().await.log();
    assert!(log.contains("set maxmemory-policy to noeviction"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_ready_while_one_master_is_silent() {
    let cluster = Cluster::start();
    let (_upstream, launch) = launch(&cluster.url()).await;
    let proxy = launch.start().await;
    let masters = cluster.masters();
    let silent = &cluster.nodes[masters[0]];
    silent.signal("STOP");
    let body = once_ready(&proxy).await;
    silent.signal("CONT");
    assert_eq!(cluster.masters(), masters, "a replica took over, and all masters answered again");
    assert_eq!(body["durability"], "about-1s", "{body}");
}

#[tokio::test]
async fn a_redis_that_does_not_tell_is_used_unless_something_is_required() {
    let server = Redis::start();
    server.cli(&["acl", "setuser", "quiet", "on", ">word", "~*", "+@all", "-config"]);
    let url = format!("redis://quiet:word@127.0.0.1:{}", server.port());
    offers(&url, "unknown").await;
    let (_upstream, launch) = launch(&url).await;
    let log = launch.start().await.log();
    assert!(log.contains("WARNING: store=redis does not tell"), "{log}");
}

#[tokio::test]
async fn postgres_offers_what_its_settings_say() {
    let server = Postgres::start();
    offers(&server.url(), "fsync").await;
    let set = |setting: &str| {
        server.psql(&format!("ALTER SYSTEM SET {setting}"));
        server.psql("SELECT pg_reload_conf()");
    };
    set("synchronous_commit = 'off'");
    crate::servers::wait_until("the setting", || server.psql("SHOW synchronous_commit") == "off");
    let (_upstream, launch) = launch(&server.url()).await;
    let proxy = launch.start().await;
    let asynchronous = proxy.ready().split("durability=").nth(1).unwrap().to_owned();
    assert!(["none", "about-1s"].contains(&asynchronous.as_str()), "{asynchronous}");
    offers(&server.url(), &asynchronous).await;
}

#[tokio::test]
async fn postgres_without_fsync_offers_less_than_the_disk() {
    let server = Postgres::start_with(&["fsync=off"]);
    offers(&server.url(), "process").await;
}

/// `/readyz` says 503 while the store does not answer, and 200 when it does again.
async fn notices(store: &str, stop: impl FnOnce(), resume: impl FnOnce()) {
    let (_upstream, launch) = launch(store).await;
    let proxy = launch.start().await;
    once_ready(&proxy).await;
    stop();
    let (status, body) = ready(&proxy).await;
    assert_eq!((status, &body["ready"]), (503, &json!(false)), "{body}");
    let why = body["durability"].as_str().unwrap();
    assert!(["timeout", "unavailable"].contains(&why), "{body}");
    resume();
    once_ready(&proxy).await;
}

#[tokio::test]
async fn a_redis_that_falls_silent_is_not_ready() {
    let server = Redis::start();
    notices(&server.url(), || server.signal("STOP"), || server.signal("CONT")).await;
}

#[tokio::test]
async fn a_redis_that_ends_is_not_ready() {
    let server = std::cell::RefCell::new(Redis::start());
    let url = server.borrow().url();
    notices(&url, || server.borrow_mut().kill(), || server.borrow_mut().run()).await;
}

#[tokio::test]
async fn a_postgres_that_falls_silent_is_not_ready() {
    let server = Postgres::start();
    notices(&server.url(), || server.signal("STOP"), || server.signal("CONT")).await;
}

#[tokio::test]
async fn a_postgres_that_ends_is_not_ready() {
    let server = std::cell::RefCell::new(Postgres::start());
    let url = server.borrow().url();
    notices(&url, || server.borrow_mut().kill(), || server.borrow_mut().run()).await;
}

#[tokio::test]
async fn a_log_past_its_size_keeps_its_newest_turns() {
    let upstream = Upstream::start().await.unwrap();
    let proxy = Launch::new(&upstream.url()).arg("--max-log").arg("8 KiB").start().await;
    let text = "x".repeat(1024);
    let mut turns = Vec::new();
    for _ in 0..12 {
        let answer = Post::chat(body(&[user(&text)])).session("s").send(&proxy).await.ok();
        turns.push(answer.told("turns").parse::<usize>().unwrap());
    }
    let most = *turns.iter().max().unwrap();
    assert!(turns.starts_with(&[0, 1, 2]) && (3..8).contains(&most), "{turns:?}");
    assert_eq!(proxy.stored("s").await.len(), most, "{turns:?}");
}
