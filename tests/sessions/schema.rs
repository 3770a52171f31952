//! The tables of PostgreSQL, which replicas share and later versions change.

use tokio::task::JoinSet;

use crate::{
    common::{Answer, Launch, Post, Proxy, Upstream, body, user},
    servers::{PASSWORD, Postgres},
};

async fn say(proxy: &Proxy, text: &str) -> Answer {
    Post::chat(body(&[user(text)])).session("s").send(proxy).await
}

/// Starts a replica, and answers the number of times that it had to be started again: on a busy machine the start of
/// several at once may take longer than the time that each has to connect.
async fn start(launch: Launch) -> (Proxy, usize) {
    for again in 0..10 {
        match launch.clone().try_start().await {
            Ok(replica) => return (replica, again),
            Err(ended) => assert!(ended.log.contains("in time"), "{ended:?}"),
        }
    }
    panic!("a replica never connects in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_start_at_once_on_an_empty_database_share_it() {
    const REPLICAS: usize = 20;
    let (server, upstream) = (Postgres::start(), Upstream::start().await.unwrap());
    let launch = Launch::new(&upstream.url()).store(&server.url());
    let starting: JoinSet<_> = (0..REPLICAS).map(|_| start(launch.sibling())).collect();
    let (replicas, again): (Vec<Proxy>, Vec<usize>) = starting.join_all().await.into_iter().unzip();
    assert!(again.iter().sum::<usize>() < REPLICAS / 2, "they wait for each other: {again:?}");
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
        assert!(!ended.log.contains(PASSWORD), "{ended:?}");
    }
}
