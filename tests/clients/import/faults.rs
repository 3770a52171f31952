//! Imports that are killed, and imports side by side: each turn is stored once, in its place.

use std::time::Duration;

use crate::import::support::*;
use crate::{common::*, servers::Redis};

const SESSIONS: usize = 6;
const TURNS: usize = 120;

fn kills() -> usize {
    std::env::var("SESSION_MEMORY_IMPORT_KILLS").map_or(10, |kills| kills.parse().unwrap())
}

fn filled() -> Redis {
    let redis = Redis::start();
    for session in 0..SESSIONS {
        push(&redis, &format!("s{session}"), &exchanges(0..TURNS));
    }
    redis
}

/// Every turn of every session once, in order.
async fn check(launch: &Launch) {
    for session in 0..SESSIONS {
        let stored = launch.stored(store::everybody, &format!("s{session}")).await;
        assert_eq!(stored.iter().flat_map(Stored::texts).collect::<Vec<_>>(), texts_of(0..TURNS));
    }
}

#[tokio::test]
async fn an_import_that_is_killed_goes_on_where_it_was() {
    let redis = filled();
    let from = format!("langchain-{}", redis.url());
    let args = ["--from", from.as_str(), "--anonymous"];
    let (mut killed, mut ended_first, mut stores) = (0, 0, 0);
    while killed < kills() {
        let launch = Launch::new("http://127.0.0.1:9");
        stores += 1;
        // Later and later, so that each death finds more of it done.
        for turns in 1.. {
            let mut child = command(&store_of(&launch), &args).spawn().unwrap();
            let goal = turns * 40;
            let reached = within("turns to be stored", async {
                loop {
                    if child.try_wait().unwrap().is_some() {
                        return false;
                    }
                    if count(&launch).await >= goal {
                        return true;
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
            .await;
            if !reached {
                ended_first += 1;
                break;
            }
            child.kill().await.unwrap();
            killed += 1;
        }
        let done = import(&store_of(&launch), &args).await;
        let (new, there) = done.turns();
        assert_eq!((done.code, new + there), (Some(0), SESSIONS * TURNS), "{done:?}");
        check(&launch).await;
    }
    println!(
        "imports: {killed} killed, {ended_first} ended, into {stores} stores of {} turns each: 0 lost, 0 doubled",
        SESSIONS * TURNS
    );
}

/// How many turns are stored.
async fn count(launch: &Launch) -> usize {
    let path = launch.store_path();
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let Ok(file) = rusqlite::Connection::open_with_flags(path, flags) else { return 0 };
    file.query_row("SELECT COUNT(*) FROM turns", [], |row| row.get::<_, i64>(0)).unwrap_or(0) as usize
}

#[tokio::test]
async fn a_source_that_is_written_to_is_read_in_order() {
    const ALL: usize = 400;
    let redis = Redis::start();
    push(&redis, "s", &exchanges(0..150));
    let from = format!("langchain-{}", redis.url());
    let launch = Launch::new("http://127.0.0.1:9");
    let args = ["--from", from.as_str(), "--anonymous"];
    let written = std::thread::scope(|threads| {
        let writer = threads.spawn(|| (150..ALL).for_each(|n| push(&redis, "s", &exchanges(n..n + 1))));
        let mut imports = 0;
        while !writer.is_finished() {
            let done = command(&store_of(&launch), &args).into_std().output().unwrap();
            assert!(done.status.success(), "{done:?}");
            imports += 1;
        }
        imports
    });
    let done = import(&store_of(&launch), &args).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    let stored = launch.stored(store::everybody, "s").await;
    assert_eq!(stored.iter().flat_map(Stored::texts).collect::<Vec<_>>(), texts_of(0..ALL));
    println!("imports of a growing source: {written}");
}

#[tokio::test]
async fn imports_side_by_side_store_each_turn_once() {
    let redis = filled();
    let from = format!("langchain-{}", redis.url());
    let launch = Launch::new("http://127.0.0.1:9");
    let args = ["--from", from.as_str(), "--anonymous"];
    let importers: Vec<_> = (0..3).map(|_| command(&store_of(&launch), &args).spawn().unwrap()).collect();
    let mut stored = 0;
    for importer in importers {
        let done = ended(importer).await;
        let (new, there) = done.turns();
        assert_eq!((done.code, new + there), (Some(0), SESSIONS * TURNS), "{done:?}");
        stored += new;
    }
    assert_eq!(stored, SESSIONS * TURNS, "each turn was stored by one of them");
    check(&launch).await;
}
