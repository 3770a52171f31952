//! The server that the tests share, and what each has of it.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tower_session_memory::store::{PostgresStore, postgres::PostgresBuilder};

pub(crate) use crate::servers::PASSWORD;
use crate::servers::Postgres;

/// Each test uses a schema of its own. A static is never dropped: the server's guard ends it with this process.
pub(crate) static SERVER: LazyLock<Postgres> = LazyLock::new(Postgres::start);

/// How long a call, or a connection, may take on a machine that has other things to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The tables of one test.
pub(crate) struct Schema {
    pub(crate) name: String,
}

impl Schema {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        Self { name: format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed)) }
    }

    pub(crate) fn builder(&self) -> PostgresBuilder {
        patient(SERVER.url()).with_schema(&self.name)
    }

    pub(crate) async fn connect(&self) -> PostgresStore {
        self.builder().open().await.unwrap()
    }

    /// Another role's or the superuser's own connection, past the store.
    pub(crate) async fn raw(&self) -> tokio_postgres::Client {
        raw(&SERVER.url()).await
    }

    /// A number that SQL answers; `{}` stands for the schema.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        let sql = sql.replace("{}", &self.name);
        self.raw().await.query_one(&sql, &[]).await.unwrap().get(0)
    }

    /// Waits until a number is at most so large. The server takes a moment to end what is over.
    pub(crate) async fn falls_to(&self, most: i64, what: &str, sql: &str) {
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let number = self.number(sql).await;
            if number <= most {
                return;
            }
            assert!(tokio::time::Instant::now() < until, "{number} {what} where {most} are allowed");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Runs SQL; `{}` stands for the schema.
    pub(crate) async fn run(&self, sql: &str) {
        self.raw().await.batch_execute(&sql.replace("{}", &self.name)).await.unwrap();
    }
}

/// A store that gives up nothing because it takes long.
pub(crate) fn patient(url: impl Into<String>) -> PostgresBuilder {
    PostgresStore::builder(url).with_timeout(PATIENCE).with_connect_timeout(PATIENCE)
}

pub(crate) async fn raw(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "it ends with the test")]
    tokio::spawn(connection);
    client
}
