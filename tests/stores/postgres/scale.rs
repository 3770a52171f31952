//! What the server does for each call on large tables: it goes by the indexes, and touches few pages.
//!
//! `SESSION_MEMORY_TABLE_TURNS` sets how many turns fill the tables; 100,000 by default.

use std::{num::NonZeroUsize, time::Duration};

use serde_json::Value;
use tower_session_memory::{
    history::RecordId,
    session::{Principal, SessionKey},
    store::{
        Cursor, Epoch, HistoryStore, Page, PostgresStore, ReadOptions, Retention, Scope, StoreErrorKind,
        TtlRefresh, postgres::PostgresBuilder,
    },
};

use super::{
    server::Schema,
    support::{key, key_of, say, turn},
};
use crate::servers::{Postgres, wait_until};

/// Half of the sessions are one principal's, as where everybody is anonymous.
const SESSIONS: &str = "
    INSERT INTO session_memory.sessions (namespace, principal, id, epoch, fresh, count, trimmed, bytes, opened, newest, touched,
                                         created_at, updated_at, expires_at)
    SELECT 'test', 'principal-' || CASE WHEN n % 2 = 0 THEN 0 ELSE n % 1000 END, 'session-' || n,
           '01010101-0101-0101-0101-010101010101', true, 20, 0, 7680, 20, gen_random_uuid(),
           nextval('session_memory.touches'), now(), now(), now() + interval '30 days'
    FROM generate_series(1, {}) n";
const EPOCH: [u8; 16] = [1; 16];

/// One turn of each session, so that a session's turns lie on different pages, as those of a conversation do.
/// Without the foreign key's trigger, which would look up every session.
const TURNS: &str = "
    SET session_replication_role = replica;
    INSERT INTO session_memory.turns (session, seq, id, opens, record)
    SELECT session, {}, gen_random_uuid(), true, decode(repeat(md5(session::text), 12), 'hex')
    FROM session_memory.sessions ORDER BY session";
const TURNS_A_SESSION: u64 = 20;

fn turns() -> u64 {
    std::env::var("SESSION_MEMORY_TABLE_TURNS")
        .map_or(100_000, |turns| turns.parse().expect("SESSION_MEMORY_TABLE_TURNS is a number"))
}

/// The first calls of a connection read the catalogue too, and make plans that are not kept.
const ROUNDS: u64 = 10;

#[tokio::test(flavor = "multi_thread")]
async fn every_call_goes_by_an_index_and_touches_few_pages_however_large_the_tables_are() {
    let server = filled();
    let costs = Costs { server: &server };
    let store = costs.builder().open().await.unwrap();
    for round in 0..ROUNDS {
        let print = round == ROUNDS - 1;
        let filled = session(2 * round + 2);
        // What fills the tables is no record, and refused as such; how it was read is what counts here.
        let load = costs.call(print, "load of 20 turns", "AS known", 60, store.load(&filled, None));
        assert_eq!(load.await.unwrap_err().kind(), StoreErrorKind::Corrupt, "its turns were found");
        let options = ReadOptions::new(0);
        let read = costs.call(print, "read of 20 turns", "AS upto", 60, store.read(&filled, &options));
        assert_eq!(read.await.unwrap_err().kind(), StoreErrorKind::Corrupt, "its turns were found");
        let new = key(&format!("new-{round}"));
        let load = costs.call(print, "load of an unknown session", "AS known", 10, store.load(&new, None));
        let at = load.await.unwrap().cursor;
        let first = turn(&new, "one");
        let append = costs.call(print, "first append", "\"append\"(", 80, store.append(&new, &at, &first));
        append.await.unwrap();
        let at = store.load(&new, None).await.unwrap().cursor;
        let load = costs.call(print, "load of nothing new", "AS known", 25, store.load(&new, Some(&at)));
        load.await.unwrap();
        let (at, more) =
            (Cursor { epoch: Epoch::from_bytes(EPOCH), count: 0, newest: None }, turn(&filled, "one more"));
        let append = costs.call(print, "append", "\"append\"(", 80, store.append(&filled, &at, &more));
        append.await.unwrap();
        let scope = Scope { namespace: "test".to_owned(), principal: Principal::new("principal-0") };
        let mut page = Page::new(20);
        for name in ["list of 20 sessions", "list of the next 20"] {
            let list = costs.call(print, name, "ORDER BY touched", 60, store.sessions(&scope, &page));
            page.after = list.await.unwrap().next;
            assert!(page.after.is_some(), "the principal has more");
        }
        // Half of the sessions that it looks at are one principal's, and each principal's is looked for.
        let page = Page::new(20);
        let list = store.principals("test", &page);
        let list = costs.call(print, "list of 20 principals", "FROM looked", 1024 * 8, list).await.unwrap();
        assert_eq!(list.principals.len(), 20);
        costs.call(print, "deletion", "\"delete\"(", 100, store.delete(&new)).await.unwrap();
    }
    store.close().await;

    let store = costs
        .builder()
        .with_retention(Retention::new().with_refresh(TtlRefresh::OnLoad))
        .open()
        .await
        .unwrap();
    // So much has passed that the expiry is put off.
    server.psql(
        "UPDATE session_memory.sessions SET expires_at = now() + interval '1 day' WHERE session <= 1000",
    );
    for round in 0..ROUNDS {
        let (print, filled) = (round == ROUNDS - 1, session(2 * round + 100));
        let load = store.load(&filled, None);
        let load = costs.call(print, "load of 20 turns, putting off the expiry", "AS known", 100, load);
        assert_eq!(load.await.unwrap_err().kind(), StoreErrorKind::Corrupt);
    }
    store.close().await;

    let store = costs.builder().open().await.unwrap();
    let scope = Scope { namespace: "test".to_owned(), principal: Principal::new("principal-0") };
    let mut page = Page::new(64);
    for round in 0..ROUNDS {
        let print = round == ROUNDS - 1;
        let step = store.delete_principal(&scope, &page);
        // Sessions of 20 turns until 512 are erased, from two tables and their seven indexes.
        let erased =
            costs.call(print, "step of an erasure", "\"erase\"(", (512 + 20) * 9, step).await.unwrap();
        assert_eq!((erased.sessions, erased.next.is_some()), (26, true), "{erased:?}");
        page.after = erased.next;
    }
    server.psql(
        "UPDATE session_memory.sessions SET updated_at = now() - interval '60 days'
         WHERE session <= 1500",
    );
    let mut page = Page::new(64);
    for round in 0..ROUNDS {
        let print = round == ROUNDS - 1;
        let step = store.expire("test", Duration::from_secs(30 * 24 * 60 * 60), &page);
        let expired =
            costs.call(print, "step of an expiry", "\"expire\"(", (512 + 20) * 9 + 1024, step).await.unwrap();
        assert!(expired.next.is_some(), "{expired:?}");
        page.after = expired.next;
    }
    store.close().await;

    let expire =
        "UPDATE session_memory.sessions SET expires_at = now() - interval '1 day' WHERE session % 100 = 7";
    server.psql(expire);
    server.psql("VACUUM session_memory.sessions");
    let expired = "SELECT count(*) FROM session_memory.sessions WHERE expires_at <= now()";
    println!("{} sessions have expired", server.psql(expired));
    assert_ne!(server.psql(expired), "0");
    let from = server.log().len();
    let store = costs.builder().open().await.unwrap();
    wait_until("the expired sessions to be removed", || server.psql(expired) == "0");
    store.close().await;
    // At most 64 sessions, here of 20 turns each, from two tables and their six indexes.
    costs.check(true, "a round of the sweep", "\"sweep\"(", 64 * 20 * 8, &plans(&server.log()[from..]));
}

/// Most sessions have a turn or two, and the server's statistics say so.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_new_in_a_long_session_is_found_without_reading_the_old_where_most_sessions_are_short() {
    let server = Postgres::start_with(&["fsync=off", "autovacuum=off"]);
    let costs = Costs { server: &server };
    let store = costs.builder().open().await.unwrap();
    say(&store, &key("long"), "one").await;
    server.psql(
        "INSERT INTO session_memory.turns SELECT session, n, gen_random_uuid(), true, 'x'
         FROM session_memory.sessions, generate_series(2, 5000) n;
         UPDATE session_memory.sessions SET count = 5000, opened = 5000",
    );
    server.psql(&SESSIONS.replace("{}", "50000"));
    server.psql(
        "SET session_replication_role = replica; INSERT INTO session_memory.turns
         SELECT session, 1, gen_random_uuid(), true, 'x' FROM session_memory.sessions WHERE id LIKE 'session-%'",
    );
    server.psql("ANALYZE");
    let at = server.psql("SELECT epoch FROM session_memory.sessions WHERE id = 'long'");
    let newest = server.psql("SELECT id FROM session_memory.turns WHERE seq = 4999");
    let bytes = |uuid: &str| *uuid::Uuid::parse_str(uuid).unwrap().as_bytes();
    let at = Cursor {
        epoch: Epoch::from_bytes(bytes(&at)),
        count: 4999,
        newest: Some(RecordId::from_bytes(bytes(&newest))),
    };
    let long = key("long");
    for round in 0..ROUNDS {
        let (print, from) = (round == ROUNDS - 1, server.log().len());
        let load =
            costs.call(print, "load of one new turn of 5,000", "AS known", 25, store.load(&long, Some(&at)));
        assert_eq!(load.await.unwrap_err().kind(), StoreErrorKind::Corrupt, "what fills the table was found");
        let log = &server.log()[from..];
        assert!(log.contains("(namespace = $1)"), "it is planned once, for any values: {log}");
    }
    store.close().await;
}

fn session(number: u64) -> SessionKey {
    key_of("principal-0", &format!("session-{number}"))
}

/// A server whose tables hold what [`turns`] says.
fn filled() -> Postgres {
    // It is filled once and thrown away.
    let settings = ["fsync=off", "autovacuum=off", "shared_buffers=256MB", "max_wal_size=2GB", "jit=off"];
    let server = Postgres::start_with(&settings);
    let migrating = PostgresStore::builder(server.url()).migrate();
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(migrating)).unwrap();
    let sessions = turns() / TURNS_A_SESSION;
    server.psql(&SESSIONS.replace("{}", &sessions.to_string()));
    for seq in 1..=TURNS_A_SESSION {
        server.psql(&TURNS.replace("{}", &seq.to_string()));
    }
    server.psql("VACUUM (ANALYZE) session_memory.sessions");
    server.psql("VACUUM (ANALYZE) session_memory.turns");
    let sizes =
        "SELECT string_agg(relname || ' ' || pg_size_pretty(pg_table_size(oid)), ', ' ORDER BY relname)
                 FROM pg_class WHERE relnamespace = 'session_memory'::regnamespace AND relkind IN ('r', 'i')";
    println!("{} turns in {sessions} sessions: {}", turns(), server.psql(sizes));
    server
}

/// Looks at what calls cost: the server writes the plan of every statement, those in functions too, into its log.
struct Costs<'a> {
    server: &'a Postgres,
}

impl Costs<'_> {
    fn builder(&self) -> PostgresBuilder {
        let settings = "session_preload_libraries=auto_explain auto_explain.log_min_duration=0 \
                        auto_explain.log_analyze=on auto_explain.log_buffers=on auto_explain.log_timing=off \
                        auto_explain.log_nested_statements=on auto_explain.log_format=json";
        let settings: Vec<_> = settings.split(' ').map(|setting| "-c%20".to_owned() + setting).collect();
        let url = format!("{}?options={}", self.server.url(), settings.join("%20").replace('=', "%3D"));
        let builder = PostgresStore::builder(url).with_max_connections(NonZeroUsize::MIN);
        builder.with_timeout(Duration::from_secs(60))
    }

    /// Makes a call whose statement holds this text; it may touch at most `most` pages.
    async fn call<T>(
        &self,
        print: bool,
        name: &str,
        statement: &str,
        most: u64,
        call: impl Future<Output = T>,
    ) -> T {
        let from = self.server.log().len();
        let answer = call.await;
        let mut found = Vec::new();
        wait_until("the plan in the server's log", || {
            found = plans(&self.server.log()[from..]);
            found.iter().any(|plan| query(plan).contains(statement))
        });
        self.check(print, name, statement, most, &found);
        answer
    }

    /// Fails where a plan reads a whole table, or a statement of ours, with all that its functions do, touches too
    /// much. Only the last, which are prepared and planned, are held to that.
    #[track_caller]
    fn check(&self, last: bool, name: &str, statement: &str, most: u64, plans: &[Value]) {
        let ours = plans.iter().filter(|plan| query(plan).contains(statement));
        let pages = ours.map(pages).max().expect("the statement itself is among them");
        let mut steps = Vec::new();
        plans.iter().for_each(|plan| scans(&plan["Plan"], &mut steps));
        let whole = steps.iter().any(|step| step.starts_with("Seq Scan"));
        assert!(!whole, "{name} reads a whole table: {steps:#?}");
        if last {
            println!("{name}: {pages} pages; {}", steps.join(", "));
            assert!(pages <= most, "{name} touches {pages} pages, more than {most}: {plans:#?}");
            assert!(steps.iter().any(|step| step.contains("Index")), "{name} goes by an index: {steps:#?}");
        }
    }
}

/// The plans in a part of the log.
fn plans(log: &str) -> Vec<Value> {
    let mut found = Vec::new();
    let mut lines = log.lines().peekable();
    while let Some(line) = lines.next() {
        if line.ends_with("  plan:") {
            let mut plan = String::new();
            while let Some(line) = lines.next_if(|line| line.starts_with('\t')) {
                plan.push_str(line);
            }
            // The last may not be written to its end yet.
            found.extend(serde_json::from_str::<Value>(&plan));
        }
    }
    found
}

fn query(plan: &Value) -> &str {
    plan["Query Text"].as_str().expect("a plan has its query")
}

/// The pages that a statement touched, those of the statements in its functions included.
fn pages(plan: &Value) -> u64 {
    let count = |name: &str| plan["Plan"][name].as_u64().expect("a plan has its buffers");
    count("Shared Hit Blocks") + count("Shared Read Blocks")
}

/// How tables are read: `Index Scan sessions_by_key`.
fn scans(node: &Value, into: &mut Vec<String>) {
    let kind = node["Node Type"].as_str().unwrap_or_default();
    if let Some(what) = node["Index Name"].as_str().or(node["Relation Name"].as_str()) {
        let step = format!("{kind} {what}");
        // The catalogue and the schema's version are read when connecting.
        let ours = ["sessions", "turns"].iter().any(|table| what.starts_with(table));
        if ours && kind.contains("Scan") && !into.contains(&step) {
            into.push(step);
        }
    }
    node["Plans"].as_array().into_iter().flatten().for_each(|node| scans(node, into));
}

/// As where the setting is new and the sessions are old.
#[tokio::test]
async fn a_session_that_loses_most_of_its_turns_at_once_writes_few_of_them_anew() {
    let schema = Schema::new();
    let store = schema
        .builder()
        .with_retention(Retention::new().with_max_turns(NonZeroUsize::new(10).unwrap()))
        .open()
        .await
        .unwrap();
    say(&store, &key("a"), "one").await;
    let at = store.load(&key("a"), None).await.unwrap().cursor;
    let fill =
        "INSERT INTO {}.turns SELECT session, n, gen_random_uuid(), true, decode(repeat(md5(n::text), 20), 'hex')
                FROM {}.sessions, generate_series(2, 5000) n;
                UPDATE {}.sessions SET count = 5000, opened = 5000";
    schema.run(fill).await;
    let size = "SELECT pg_relation_size('{}.turns')";
    let before = schema.number(size).await;
    store.append(&key("a"), &at, &turn(&key("a"), "more")).await.unwrap();
    assert_eq!(schema.number("SELECT count(*) FROM {}.turns WHERE record IS NOT NULL").await, 10);
    assert_eq!(schema.number("SELECT count(*) FROM {}.turns").await, 10 + 1024, "ids that are remembered");
    // Without its record a turn takes 60 bytes.
    let written = schema.number(size).await - before;
    assert!(written < 2 * 1024 * 60, "{written} bytes are more than the 1,024 that are remembered take");
}
