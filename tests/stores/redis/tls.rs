//! TLS and passwords: what is checked before anything is said, on one server, in a Cluster, behind Sentinels.

use std::time::{Duration, Instant};

use tower_session_memory::store::{Durability, HistoryStore, RedisStore};

use crate::redis::{
    load::PATIENCE,
    support::{allow, inspect_and_erase, key, refused_a_script, say, texts},
};
use crate::servers::{Cluster, Redis, Watched, wait_until};

/// A URL that trusts the server's own authority.
pub(crate) fn url(server: &Redis) -> String {
    format!("rediss://127.0.0.1:{}?tls_ca={}", server.port(), server.file("ca.pem"))
}

async fn refused(url: &str) -> String {
    let builder =
        RedisStore::builder(url).with_timeouts(Duration::from_millis(300), Duration::from_millis(600));
    builder.open().await.expect_err("the connection is refused").to_string()
}

#[tokio::test]
async fn a_server_whose_certificate_nobody_vouches_for_is_refused() {
    let (server, other) = (Redis::tls(false), Redis::tls(false));
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let error = refused(&format!("rediss://127.0.0.1:{}", server.port())).await;
        // On a busy machine it may take longer to find out.
        if error.contains("certificate") {
            break;
        }
        assert!(Instant::now() < until, "it says why: {error}");
    }
    refused(&format!("rediss://127.0.0.1:{}?tls_ca={}", server.port(), other.file("ca.pem"))).await;
    refused(&format!("rediss://localhost:{}?tls_ca={}", server.port(), server.file("ca.pem"))).await;
    refused(&format!("redis://127.0.0.1:{}", server.port())).await;
    let error = refused(&format!("rediss://127.0.0.1:{}?tls_ca=/not/there.pem", server.port())).await;
    assert!(error.contains("/not/there.pem"), "{error}");
    let plain =
        refused(&format!("redis://127.0.0.1:{}?tls_ca={}", server.port(), server.file("ca.pem"))).await;
    assert!(plain.contains("certificates are for TLS"), "{plain}");
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_is_shown_one() {
    let server = Redis::tls(true);
    refused(&url(&server)).await;
    let url = format!(
        "{}&tls_cert={}&tls_key={}",
        url(&server),
        server.file("client.pem"),
        server.file("client.key")
    );
    let store = connected(&url).await;
    say(&store, &key("a"), "one").await;
    assert_eq!(texts(&store, "a").await, ["one"]);
    store.durability().await.unwrap();
}

/// Handshakes take their time without optimisation, above all with every node of a Cluster.
async fn connected(url: &str) -> RedisStore {
    let builder = RedisStore::builder(url).with_connect_timeout(PATIENCE);
    builder.with_timeouts(Duration::from_secs(2), Duration::from_secs(40)).open().await.unwrap()
}

const USER: &str = "memory:pass%40word@";

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_over_tls_takes_a_user_with_the_rights_that_are_documented() {
    let cluster = Cluster::secure("the-admins");
    for node in &cluster.nodes {
        allow(node, "+wait +asking +cluster|slots +config|get");
    }
    let url = format!("{}&wait_replicas=1", cluster.url_as(USER));
    let store = connected(&url).await;
    for number in 0..16 {
        let id = format!("session-{number}");
        say(&store, &key(&id), "one").await;
        say(&store, &key(&id), "two").await;
        assert_eq!(texts(&store, &id).await, ["one", "two"]);
    }
    store.delete(&key("session-1")).await.unwrap();
    assert_eq!(store.durability().await.unwrap(), Durability::Replicated);
    inspect_and_erase(&store).await;
    assert!(!cluster.nodes.iter().any(refused_a_script), "a script was refused a command");
    say(&store, &key("session-2"), "one").await;

    // A slot that is on its way: what is not in it yet begins where it goes.
    let masters = cluster.masters();
    let find = |master: &&usize| cluster.nodes[**master].cli(&["keys", "*:log:*:session-2"]);
    let from = *masters.iter().find(|master| !find(master).is_empty()).unwrap();
    let to = *masters.iter().find(|master| **master != from).unwrap();
    let name = find(&&from);
    let (from, to) = (&cluster.nodes[from], &cluster.nodes[to]);
    let slot = from.cli(&["cluster", "keyslot", &name]);
    assert_eq!(from.cli(&["del", &name]), "1");
    let id = |node: &Redis| node.cli(&["cluster", "myid"]);
    assert_eq!(to.cli(&["cluster", "setslot", &slot, "importing", &id(from)]), "OK");
    assert_eq!(from.cli(&["cluster", "setslot", &slot, "migrating", &id(to)]), "OK");
    say(&store, &key("session-2"), "asked").await;
    assert_eq!(texts(&store, "session-2").await, ["asked"]);
    assert_eq!(from.cli(&["keys", "*:log:*:session-2"]), "");

    refused(&cluster.url_as("memory:wrong@")).await;
    refused(&cluster.url_as("")).await;
    let plain = cluster.url_as(USER).replace("rediss", "redis");
    refused(plain.split_once('?').unwrap().0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_over_tls_and_their_passwords_lead_to_a_server_with_its_own() {
    let mut watched = Watched::secure("the-admins", "the-sentinels");
    for server in &watched.servers {
        allow(server, "+role");
    }
    let url = watched.url_as(USER, "&sentinel_password=the-sentinels");
    let store = connected(&url).await;
    say(&store, &key("a"), "one").await;
    let master = watched.master();
    wait_until("replication", || watched.servers[master].is_replicated());
    watched.fail_over_soon();
    watched.servers[master].kill();
    say(&store, &key("a"), "two").await;
    assert_eq!(texts(&store, "a").await, ["one", "two"]);
    wait_until("the sentinels to know", || watched.master() != master);

    refused(&watched.url_as(USER, "")).await;
    refused(&watched.url_as(USER, "&sentinel_password=wrong")).await;
    refused(&watched.url_as("memory:wrong@", "&sentinel_password=the-sentinels")).await;
}
