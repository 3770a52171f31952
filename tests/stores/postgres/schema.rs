//! Making and migrating the tables, and what is refused.

use std::{net::Ipv4Addr, time::Duration};

use tokio::task::JoinSet;
use tower_session_memory::{
    session::Principal,
    store::{HistoryStore, Page, PostgresStore, Retention, Scope, TtlRefresh, postgres::OpenProblem},
};

use super::{
    server::{PASSWORD, SERVER, Schema, patient, raw},
    support::{key, say, texts},
};
use crate::servers::{Fault, FaultProxy, free_port};

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_start_at_once_make_the_tables_once() {
    for _ in 0..10 {
        let schema = Schema::new();
        let mut starting = JoinSet::new();
        for number in 0..8 {
            let builder = schema.builder();
            starting.spawn(async move {
                say(&builder.open().await.unwrap(), &key("a"), &number.to_string()).await;
            });
        }
        starting.join_all().await;
        assert_eq!(texts(&schema.connect().await, &key("a")).await.len(), 8);
        assert_eq!(schema.number("SELECT count(*) FROM {}.schema_version").await, 1, "each step once");
    }
}

#[tokio::test]
async fn tables_are_made_only_where_that_is_wanted() {
    let schema = Schema::new();
    let refused = schema.builder().with_migration(false).open().await.unwrap_err();
    assert!(matches!(refused.problem(), OpenProblem::NeedsMigration { found: 0, .. }), "{refused}");
    assert_eq!(schema.number("SELECT count(*) FROM pg_namespace WHERE nspname = '{}'").await, 0);

    let migrated = schema.builder().migrate().await.unwrap();
    assert_eq!((migrated.from, migrated.to), (0, 1));
    let again = schema.builder().migrate().await.unwrap();
    assert_eq!((again.from, again.to), (1, 1));
    let store = schema.builder().with_migration(false).open().await.unwrap();
    say(&store, &key("a"), "one").await;
}

#[tokio::test]
async fn tables_of_a_later_version_are_refused_and_left_alone() {
    let schema = Schema::new();
    schema.connect().await.close().await;
    schema.run("INSERT INTO {}.schema_version (version) VALUES (7)").await;
    for builder in [schema.builder(), schema.builder().with_migration(false)] {
        let refused = builder.open().await.unwrap_err();
        assert!(matches!(refused.problem(), OpenProblem::NewerSchema { found: 7, known: 1 }), "{refused}");
    }
    assert_eq!(schema.number("SELECT count(*) FROM {}.schema_version").await, 2);
}

#[tokio::test]
async fn a_role_that_may_not_make_tables_can_use_them() {
    let schema = Schema::new();
    schema.builder().migrate().await.unwrap();
    schema
        .run(
            "CREATE ROLE {}_app LOGIN PASSWORD 'app';
             GRANT USAGE ON SCHEMA {} TO {}_app;
             GRANT USAGE ON ALL SEQUENCES IN SCHEMA {} TO {}_app;
             GRANT SELECT, INSERT, UPDATE, DELETE ON {}.sessions, {}.turns TO {}_app;
             GRANT SELECT ON {}.schema_version TO {}_app",
        )
        .await;
    let url = format!("postgres://{}_app:app@127.0.0.1:{}/postgres", schema.name, SERVER.port());
    let store = patient(url).with_schema(&schema.name).open().await.unwrap();
    say(&store, &key("a"), "one").await;
    assert_eq!(texts(&store, &key("a")).await, ["one"]);
}

#[tokio::test]
async fn a_wrong_password_is_an_error_without_the_password() {
    let schema = Schema::new();
    schema.run(&format!("CREATE ROLE guarded LOGIN SUPERUSER PASSWORD '{PASSWORD}'")).await;
    let right = SERVER.url().replace("//postgres:", "//guarded:");
    say(&patient(right.clone()).with_schema(&schema.name).open().await.unwrap(), &key("a"), "one").await;
    let wrong = right.replace(PASSWORD, "hunter2");
    let builder = PostgresStore::builder(wrong);
    assert!(!format!("{builder:?}").contains("hunter2"));
    let error = builder.open().await.unwrap_err();
    let told = format!("{error} {error:?}");
    assert!(told.contains("password authentication failed"), "it says what is wrong: {told}");
    assert!(!told.contains("hunter2") && !told.contains("127.0.0.1"), "{told}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error_without_its_address() {
    let port = free_port();
    let url = format!("postgres://postgres:hunter2@127.0.0.1:{port}/postgres");
    let error = PostgresStore::builder(url).open().await.unwrap_err();
    let told = format!("{error} {error:?}");
    assert!(!told.contains("hunter2") && !told.contains(&port.to_string()), "{told}");
}

#[tokio::test]
async fn a_database_of_another_encoding_is_refused() {
    let schema = Schema::new();
    schema.run("CREATE DATABASE {}_latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0").await;
    let url = SERVER.url_of(&format!("{}_latin", schema.name));
    let error = PostgresStore::builder(url).open().await.unwrap_err();
    assert!(matches!(error.problem(), OpenProblem::Encoding(found) if found == "LATIN1"), "{error}");
}

#[tokio::test]
async fn a_connect_that_is_dropped_on_the_way_leaves_no_lock() {
    let schema = Schema::new();
    for polls in 1..40_u32 {
        let mut connecting = Box::pin(schema.builder().open());
        let mut left = polls;
        let _ = std::future::poll_fn(|context| match left {
            0 => std::task::Poll::Ready(None),
            _ => {
                left -= 1;
                connecting.as_mut().poll(context).map(Some)
            }
        })
        .await;
    }
    say(&schema.connect().await, &key("a"), "one").await;
    let locks = raw(&SERVER.url()).await;
    let sql = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 1414745393
               AND objid::text = (hashtext($1)::bigint & 4294967295)::text";
    for _ in 0..1000 {
        let held: i64 = locks.query_one(sql, &[&format!("\"{}\".\"\"", schema.name)]).await.unwrap().get(0);
        if held == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("a dropped connect keeps the migration's lock");
}

/// Where functions are looked for first in a schema that everybody may write to.
#[tokio::test]
async fn functions_and_operators_of_other_roles_are_not_called() {
    SERVER.psql("CREATE DATABASE shadowed");
    SERVER.psql("ALTER DATABASE shadowed SET search_path = public, pg_catalog");
    let url = SERVER.url_of("shadowed");
    let other = raw(&url).await;
    for function in [
        "now() RETURNS timestamptz",
        "clock_timestamp() RETURNS timestamptz",
        "current_setting(text) RETURNS text",
        "hashtext(text) RETURNS int4",
        "nextval(text) RETURNS int8",
        "convert_from(bytea, text) RETURNS text",
        "arithmetic(float8, int4) RETURNS float8",
        "equality(uuid, uuid) RETURNS boolean",
    ] {
        let body = "LANGUAGE plpgsql AS $$ BEGIN RAISE 'a function of another role was called'; END $$";
        other.batch_execute(&format!("CREATE FUNCTION public.{function} {body}")).await.unwrap();
    }
    let arithmetic = "(LEFTARG = float8, RIGHTARG = int4, FUNCTION = public.arithmetic)";
    let operators = format!("CREATE OPERATOR public.* {arithmetic}; CREATE OPERATOR public./ {arithmetic}");
    other.batch_execute(&operators).await.unwrap();

    // Behind a pooler no search_path is sent: what is called is safe by itself.
    for behind_pooler in [true, false] {
        if !behind_pooler {
            let equality = "(LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = public.equality)";
            other.batch_execute(&format!("CREATE OPERATOR public.= {equality}")).await.unwrap();
        }
        let schema = format!("behind_pooler_{behind_pooler}");
        let builder = patient(&url)
            .with_schema(&schema)
            .with_retention(Retention::new().with_refresh(TtlRefresh::OnLoad));
        let store = builder.with_transaction_pooler(behind_pooler).open().await.unwrap();
        say(&store, &key("a"), "one").await;
        say(&store, &key("a"), "two").await;
        say(&store, &key("b"), "three").await;
        store.delete(&key("b")).await.unwrap();
        assert_eq!(texts(&store, &key("a")).await, ["one", "two"]);
        let scope =
            Scope { namespace: key("a").namespace().to_owned(), principal: Principal::new("somebody") };
        let page = store.sessions(&scope, &Page::new(9)).await.unwrap();
        assert_eq!(page.sessions.len(), 1);
        store.durability().await.unwrap();
        let sweep = format!("SELECT {schema}.sweep(1, 1), {schema}.readable(record) FROM {schema}.turns");
        assert_eq!(other.query(&sweep, &[]).await.unwrap().len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stopped_answering_is_not_waited_for_at_the_start() {
    let proxy = FaultProxy::before((Ipv4Addr::LOCALHOST, SERVER.port()).into()).await;
    let url = SERVER.url().replace(&format!(":{}/", SERVER.port()), &format!(":{}/", proxy.port()));
    for (asked, migration) in [("server_version", true), ("relname", true), ("relname", false)] {
        let before = proxy.struck(Fault::Freeze);
        // Until it came so far within its time.
        while proxy.struck(Fault::Freeze) == before {
            proxy.strike(Fault::Freeze, asked);
            let builder = PostgresStore::builder(&url).with_connect_timeout(Duration::from_secs(1));
            let connect = builder.with_schema("frozen").with_migration(migration).open();
            let refused = tokio::time::timeout(Duration::from_secs(60), connect).await;
            let refused = refused.expect("it gives up").unwrap_err();
            assert!(matches!(refused.problem(), OpenProblem::Timeout), "{refused}");
        }
    }
}
