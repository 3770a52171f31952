//! The server that the tests share, and what each has of it.

use std::sync::{
    LazyLock,
    atomic::{AtomicU32, Ordering},
};

use tower_session_memory::store::{PostgresStore, postgres::PostgresBuilder};

pub(crate) use crate::servers::PASSWORD;
use crate::servers::Postgres;

/// Each test uses a schema of its own. A static is never dropped: the server's guard ends it with this process.
pub(crate) static SERVER: LazyLock<Postgres> = LazyLock::new(Postgres::start);

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
        PostgresStore::builder(SERVER.url()).with_schema(&self.name)
    }

    pub(crate) async fn connect(&self) -> PostgresStore {
        self.builder().connect().await.unwrap()
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

    /// Runs SQL; `{}` stands for the schema.
    pub(crate) async fn run(&self, sql: &str) {
        self.raw().await.batch_execute(&sql.replace("{}", &self.name)).await.unwrap();
    }
}

pub(crate) async fn raw(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "it ends with the test")]
    tokio::spawn(connection);
    client
}
