#![expect(clippy::unwrap_used, reason = "tests")]

use rusqlite::StatementStatus;

use super::{super::schema, *};

#[test]
fn a_page_of_principals_looks_for_the_newest_session_of_each_once() {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch(schema::SCHEMA).unwrap();
    connection
        .execute_batch(
            "WITH RECURSIVE n(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM n LIMIT 3000)
             INSERT INTO sessions (namespace, principal, id, epoch, fresh, count, trimmed, bytes, opened, touched, slot,
                                   created_at, updated_at, expires, sweep_from)
             SELECT 'test', 'principal-' || (n % 3), 'session-' || n, zeroblob(16), 1, 1, 0, 1, 1, n, 0, n, n, 1000000, 1000000
             FROM n",
        )
        .unwrap();
    let reader = Reader {
        connection,
        retention: Retention::default(),
        clock: Clock::new(|| std::time::UNIX_EPOCH),
        file: FileId::of(std::path::Path::new("/")),
    };
    let page = reader.principals("test", &Page::new(100)).unwrap();
    let listed: Vec<_> = page.principals.iter().map(|listed| listed.principal.as_str()).collect();
    assert_eq!((listed, page.next), (vec!["principal-0", "principal-2", "principal-1"], None));
    let looks = reader.connection.prepare_cached(NEWEST_OF).unwrap().get_status(StatementStatus::Run);
    assert_eq!(looks, 3, "of 3,000 sessions");
}
