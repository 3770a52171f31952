//! TLS: what is checked before anything is said.

use std::time::Duration;

use tower_session_memory::store::{HistoryStore, RedisStore};

use crate::{
    servers::Redis,
    support::{key, say, texts},
};

/// A URL that trusts the server's own authority.
pub(crate) fn url(server: &Redis) -> String {
    format!("rediss://127.0.0.1:{}?tls_ca={}", server.port(), server.file("ca.pem"))
}

async fn refused(url: &str) -> String {
    let builder =
        RedisStore::builder(url).with_timeouts(Duration::from_millis(300), Duration::from_millis(600));
    builder.connect().await.expect_err("the connection is refused").to_string()
}

#[tokio::test]
async fn a_server_whose_certificate_nobody_vouches_for_is_refused() {
    let (server, other) = (Redis::tls(false), Redis::tls(false));
    let error = refused(&format!("rediss://127.0.0.1:{}", server.port())).await;
    assert!(error.contains("certificate"), "it says why: {error}");
    refused(&format!("rediss://127.0.0.1:{}?tls_ca={}", server.port(), other.file("ca.pem"))).await;
    refused(&format!("rediss://localhost:{}?tls_ca={}", server.port(), server.file("ca.pem"))).await;
    refused(&format!("redis://127.0.0.1:{}", server.port())).await;
    let error = refused(&format!("rediss://127.0.0.1:{}?tls_ca=/not/there.pem", server.port())).await;
    assert!(error.contains("/not/there.pem"), "{error}");
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
    let store = RedisStore::builder(&url).connect().await.unwrap();
    say(&store, &key("a"), "one").await;
    assert_eq!(texts(&store, "a").await, ["one"]);
    store.durability().await.unwrap();
}
