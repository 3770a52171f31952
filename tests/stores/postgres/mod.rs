//! The PostgreSQL store: the conformance suite, and what only a server can do to it.
//!
//! The tests start a server of their own; as root they run it as the user `postgres`.

#![cfg(unix)]

mod deaths;
#[cfg(target_os = "linux")]
mod disk;
mod faults;
mod load;

mod pooler;
mod scale;
mod schema;
mod server;
mod standby;
mod support;
mod tls;

use tower_session_memory::{
    store::{Durability, HistoryStore, PostgresStore, postgres::PostgresBuilder},
    testing::conformance::{Harness, Options},
};

use self::{
    server::{SERVER, Schema, patient},
    support::{key, say, texts},
};

/// How the store of the conformance suite is built.
struct Postgres(fn(&Schema) -> PostgresBuilder);

impl Harness for Postgres {
    type Store = PostgresStore;

    async fn store(&self, options: &Options) -> PostgresStore {
        let builder = self.0(&Schema::new()).with_retention(options.retention);
        builder.open().await.unwrap()
    }
}

mod conformance {
    tower_session_memory::conformance_tests!(super::Postgres(super::Schema::builder));
}

/// Behind PgBouncer in transaction mode, and with names that need their quotes.
mod conformance_behind_a_pooler {
    tower_session_memory::conformance_tests!(super::Postgres(|schema| super::patient(
        super::pooler::POOLER.url_of("postgres")
    )
    .with_schema(&schema.name)
    .with_transaction_pooler(true)
    .with_table_prefix("My \"{turns}\" ")));
}

#[tokio::test]
async fn an_acknowledgement_is_worth_what_the_server_is_set_to() {
    let worth = async |setting: &str| {
        let url = format!("{}?options=-c%20synchronous_commit%3D{setting}", SERVER.url());
        let store = patient(url).with_schema(Schema::new().name).open().await.unwrap();
        store.durability().await.unwrap()
    };
    assert_eq!(worth("on").await, Durability::Fsync);
    assert_eq!(worth("off").await, Durability::None);
}

#[tokio::test]
async fn a_conversation_goes_on_through_the_unix_socket() {
    let schema = Schema::new();
    say(&schema.connect().await, &key("a"), "one").await;
    let store = patient(SERVER.socket_url()).with_schema(&schema.name).open().await.unwrap();
    say(&store, &key("a"), "two").await;
    assert_eq!(texts(&store, &key("a")).await, ["one", "two"]);
}

#[tokio::test]
async fn two_replicas_see_each_others_turns_at_once() {
    let schema = Schema::new();
    let (one, two) = (schema.connect().await, schema.connect().await);
    for round in 0..20 {
        let (writes, reads) = if round % 2 == 0 { (&one, &two) } else { (&two, &one) };
        say(writes, &key("a"), &round.to_string()).await;
        assert_eq!(texts(reads, &key("a")).await.len(), round + 1);
    }
}

#[tokio::test]
async fn records_can_be_read_in_psql_and_by_row_level_security_only_by_whom_they_concern() {
    let schema = Schema::new();
    let store = schema.connect().await;
    let (mine, theirs) = (support::key_of("me", "a"), support::key_of("them", "b"));
    say(&store, &mine, r#"{"role":"user","content":"möglich 💬"}"#).await;
    say(&store, &theirs, r#"{"role":"user","content":"theirs"}"#).await;
    schema
        .run(
            "CREATE ROLE {}_reader;
             GRANT USAGE ON SCHEMA {} TO {}_reader;
             GRANT SELECT ON ALL TABLES IN SCHEMA {} TO {}_reader;
             ALTER TABLE {}.sessions ENABLE ROW LEVEL SECURITY;
             ALTER TABLE {}.turns ENABLE ROW LEVEL SECURITY;
             CREATE POLICY own ON {}.sessions USING (principal = current_setting('app.principal'));
             CREATE POLICY own ON {}.turns USING (
                 EXISTS (SELECT FROM {}.sessions s WHERE s.session = turns.session));",
        )
        .await;
    let reader = schema.raw().await;
    let role = format!("SET ROLE {}_reader; SET app.principal = 'me'", schema.name);
    reader.batch_execute(&role).await.unwrap();
    let sql = "SELECT {}.readable(record) FROM {}.turns".replace("{}", &schema.name);
    let rows = reader.query(&sql, &[]).await.unwrap();
    assert_eq!(rows.len(), 1, "only their own");
    let record: String = rows[0].get(0);
    assert!(record.contains(r#"{"role":"user","content":"möglich 💬"}"#), "{record}");
    let odd = "SELECT {}.readable('\\x00ff7b'::bytea)".replace("{}", &schema.name);
    let odd: String = reader.query_one(&odd, &[]).await.unwrap().get(0);
    assert_eq!(odd, "\\000\\377{", "what is no text is shown as its bytes");
}

#[tokio::test]
async fn a_closed_store_refuses_what_comes_later() {
    let store = Schema::new().connect().await;
    say(&store, &key("a"), "one").await;
    let other_handle = store.clone();
    store.close().await;
    store.close().await;
    let error = other_handle.load(&key("a"), None).await.unwrap_err();
    assert!(!error.is_transient(), "{error:?}");
}
