//! Servers of which a test has the inside: what happens to a store without its replicas' doing.

use std::{fs, num::NonZeroUsize, sync::Mutex, time::Duration};

use tower_session_memory::store::{HistoryStore, PostgresStore, RedisStore, Retention};

use crate::{
    common::store::{AnyStore, wrapped},
    place::{KEYS, postgres_client},
    servers::{Postgres, Redis},
};

/// A server with nothing but this test's sessions in it.
pub struct Behind {
    server: Server,
    sealed: bool,
}

enum Server {
    Redis(Mutex<Redis>),
    Postgres(Postgres, tokio_postgres::Client),
}

impl Behind {
    pub async fn redis(sealed: bool) -> Self {
        Self { server: Server::Redis(Mutex::new(Redis::start())), sealed }
    }

    pub async fn postgres(sealed: bool) -> Self {
        let server = Postgres::start();
        let client = postgres_client(&server.url()).await;
        Self { server: Server::Postgres(server, client), sealed }
    }

    /// A store with connections of its own, as each replica has.
    pub async fn open(&self, max_turns: Option<NonZeroUsize>) -> Opened {
        let keys = self.sealed.then_some(KEYS);
        Opened(match &self.server {
            Server::Redis(server) => {
                let url = server.lock().unwrap().url();
                let builder =
                    RedisStore::builder(url).with_timeouts(Duration::from_secs(2), Duration::from_secs(30));
                let builder = builder.with_retention(Retention::new().with_max_turns(max_turns));
                wrapped(builder.open().await.unwrap(), keys)
            }
            Server::Postgres(server, _) => {
                let builder = PostgresStore::builder(server.url()).with_timeout(Duration::from_secs(30));
                let builder = builder.with_retention(Retention::new().with_max_turns(max_turns));
                wrapped(builder.open().await.unwrap(), keys)
            }
        })
    }

    /// The session's time has come.
    pub async fn expire(&self, id: &str) {
        match &self.server {
            Server::Redis(server) => {
                let server = server.lock().unwrap();
                for log in server.cli(&["keys", &format!("*:log:*:{id}")]).lines() {
                    server.cli(&["pexpireat", log, "1"]);
                }
            }
            Server::Postgres(_, client) => {
                let update = "UPDATE session_memory.sessions SET expires_at = now() WHERE id = $1";
                client.execute(update, &[&id]).await.unwrap();
            }
        }
    }

    /// Everything is gone, tombstones and all.
    pub async fn forget_everything(&self) {
        match &self.server {
            Server::Redis(server) => assert_eq!(server.lock().unwrap().cli(&["flushall"]), "OK"),
            Server::Postgres(_, client) => {
                client.batch_execute("TRUNCATE session_memory.turns, session_memory.sessions").await.unwrap();
            }
        }
    }

    /// Keeps what there is, as a replica has it that then lags behind.
    pub async fn save(&self) {
        match &self.server {
            Server::Redis(server) => {
                let server = server.lock().unwrap();
                assert_eq!(server.cli(&["save"]), "OK");
                fs::copy(server.file("dump.rdb"), server.file("saved.rdb")).unwrap();
            }
            Server::Postgres(_, client) => {
                let save = "DROP TABLE IF EXISTS saved_sessions, saved_turns;
                    CREATE TABLE saved_sessions AS TABLE session_memory.sessions;
                    CREATE TABLE saved_turns AS TABLE session_memory.turns;";
                client.batch_execute(save).await.unwrap();
            }
        }
    }

    /// Goes back to what was saved: the newest turns are gone, in the same epochs. Redis is killed and started
    /// on the older file.
    pub async fn restore(&self) {
        match &self.server {
            Server::Redis(server) => {
                let mut server = server.lock().unwrap();
                server.kill();
                fs::copy(server.file("saved.rdb"), server.file("dump.rdb")).unwrap();
                server.run();
            }
            Server::Postgres(_, client) => {
                let restore = "BEGIN;
                    TRUNCATE session_memory.turns, session_memory.sessions;
                    INSERT INTO session_memory.sessions OVERRIDING SYSTEM VALUE SELECT * FROM saved_sessions;
                    INSERT INTO session_memory.turns SELECT * FROM saved_turns;
                    COMMIT;";
                client.batch_execute(restore).await.unwrap();
            }
        }
    }
}

/// A store of whatever kind, for the wrapper that is looked at.
pub struct Opened(AnyStore);

impl HistoryStore for Opened {
    tower_session_memory::delegate_history_store!(
        |this| this.0;
        load, read, append, delete, sessions, principals, delete_principal, expire, durability, name, close
    );
}
