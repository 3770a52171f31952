//! What the server does for a load, a listing, an append and a sweep of large tables: it goes by the indexes.

use std::time::Duration;

use tower_session_memory::{
    session::Principal,
    store::{HistoryStore, Page, PostgresStore, Scope, TtlRefresh},
};

use super::{
    server::{SERVER, Schema},
    support::{key, say},
};

/// 10,000 live sessions of 100 principals and 10,000 expired ones, of five turns each.
const FILL: &str = "
    INSERT INTO {}.sessions (namespace, principal, id, epoch, fresh, count, trimmed, newest, touched,
                             created_at, updated_at, expires_at)
    SELECT 'test', 'principal-' || n % 100, 'session-' || n, gen_random_uuid(), true, 5, 0, gen_random_uuid(),
           nextval('{}.touches'), now(), now(),
           now() + CASE WHEN n % 2 = 0 THEN interval '1 day' ELSE -interval '1 day' END
    FROM generate_series(1, 20000) n;
    INSERT INTO {}.turns (session, seq, id, record)
    SELECT session, seq, gen_random_uuid(), convert_to(repeat('x', 200), 'UTF8')
    FROM {}.sessions, generate_series(1, 5) seq;
    VACUUM ANALYZE {}.sessions;
    VACUUM ANALYZE {}.turns";

#[tokio::test]
async fn every_statement_goes_by_an_index() {
    let schema = Schema::new();
    schema.builder().migrate().await.unwrap();
    for statement in FILL.split(';') {
        schema.run(statement).await;
    }
    // The server writes the plan of every statement, those in functions too, into its log.
    let explain = "session_preload_libraries=auto_explain auto_explain.log_min_duration=0 \
                   auto_explain.log_nested_statements=on auto_explain.log_verbose=on";
    let options: String = explain
        .split_whitespace()
        .map(|setting| format!("-c%20{}%20", setting.replace('=', "%3D")))
        .collect();
    let store = PostgresStore::builder(format!("{}?options={options}", SERVER.url()))
        .with_schema(&schema.name)
        .with_sweep_interval(Duration::from_secs(3600))
        .with_ttl_refresh(TtlRefresh::OnLoad)
        .connect()
        .await
        .unwrap();
    for round in 0..10 {
        say(&store, &key("a"), &round.to_string()).await;
    }
    let cursor = store.load(&key("a"), None).await.unwrap().cursor;
    store.load(&key("a"), Some(&cursor)).await.unwrap();
    store.delete(&key("a")).await.unwrap();
    let scope = Scope { namespace: "test".to_owned(), principal: Principal::new("principal-2") };
    let page = store.sessions(&scope, &Page { limit: 20, after: None }).await.unwrap();
    assert_eq!(page.sessions.len(), 20, "the tables are filled");
    for _ in 0..6000 {
        if schema.number("SELECT count(*) FROM {}.sessions WHERE expires_at <= now()").await == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    store.close().await;
    assert_eq!(schema.number("SELECT count(*) FROM {}.sessions WHERE id LIKE 'session-%'").await, 10_000);
    assert_eq!(schema.number("SELECT count(*) FROM {}.turns").await, 50_000, "and the turns of the others");

    let log = SERVER.log();
    let plans: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("Scan") && line.contains(&format!(" {}.", schema.name)))
        .collect();
    let goes_by = |index: &str| plans.iter().any(|line| line.contains(&format!("using {index} on")));
    for index in ["sessions_by_key", "sessions_by_touch", "sessions_by_expiry", "turns_by_seq", "turns_by_id"]
    {
        assert!(goes_by(index), "no plan goes by {index}: {plans:#?}");
    }
    let whole: Vec<_> = plans.iter().filter(|line| line.contains("Seq Scan")).collect();
    assert!(whole.is_empty(), "a plan reads a whole table: {whole:#?}");
}
