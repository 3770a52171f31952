//! What a newer version of the program wrote.

use crate::{common::*, own::Own};

on_own_stores! {
    a_session_that_a_newer_version_wrote_is_refused_by_the_names_of_both
}

async fn say(proxy: &Proxy, text: &str) -> Answer {
    Post::chat(body(&[user(text)])).session("s").send(proxy).await
}

async fn a_session_that_a_newer_version_wrote_is_refused_by_the_names_of_both(own: Own) {
    let upstream = Upstream::start().await.unwrap();
    let launch = own.launch(&upstream);
    let before = launch.clone().start().await;
    for text in ["one", "two"] {
        say(&before, text).await.ok();
    }
    let layout = make_newer(&own, &launch);
    let asked = upstream.request_count();
    let fresh = launch.sibling().start().await;
    let answer = say(&fresh, "three").await;
    assert_eq!((answer.status, answer.code()), (503, "session_store_unavailable".to_owned()), "{layout}");
    assert_eq!(upstream.request_count(), asked, "nothing is asked without its history");
    Post::chat(body(&[user("hello")])).session("other").send(&fresh).await.ok();
    fresh.terminate();
    let log = fresh.ended().await.log;
    let told = format!("the stored {layout} version 2.0; this program reads 1.x");
    assert!(log.contains(&told) && log.contains("conflict"), "{told}: {log}");
}

/// Gives the first turn a version that no program knows yet, and answers the name of what has the version.
fn make_newer(own: &Own, launch: &Launch) -> &'static str {
    match own {
        Own::Sqlite => {
            let file = rusqlite::Connection::open(launch.store_path()).unwrap();
            let change = r#"CAST(replace(CAST(record AS TEXT), '{"v":"1.0"', '{"v":"2.0"') AS BLOB)"#;
            let changed = file.execute(&format!("UPDATE turns SET record = {change} WHERE seq = 1"), []);
            assert_eq!(changed.unwrap(), 1);
            "record has format"
        }
        Own::Postgres(server) => {
            let change =
                r#"convert_to(replace(convert_from(record, 'UTF8'), '{"v":"1.0"', '{"v":"2.0"'), 'UTF8')"#;
            server.psql(&format!("UPDATE session_memory.turns SET record = {change} WHERE seq = 1"));
            "record has format"
        }
        Own::Redis(server) => {
            let log = server.cli(&["keys", "session-memory:log:*"]);
            server.cli(&["setrange", &log, "6", "2"]);
            "log has layout"
        }
    }
}
