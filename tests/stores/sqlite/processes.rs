//! Several processes on one file, and processes that are killed.
//!
//! The processes are this test program itself, started with [`the_process_that_appends`] as its only test.

use std::{
    collections::HashSet,
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use tokio::task::JoinSet;
use tower_session_memory::{
    history::RecordId,
    store::{Appended, Cursor, HistoryStore, Retention, SqliteStore},
};

use crate::sqlite::support::{File, PATIENCE, key, turn};

const FILE: &str = "SESSION_MEMORY_TEST_FILE";
const TURNS: &str = "SESSION_MEMORY_TEST_TURNS";
/// A fourth of the bytes of the largest turns.
const BYTES: &str = "SESSION_MEMORY_TEST_BYTES";
const SESSIONS: usize = 4;
const TURNS_EACH: usize = 100;

/// How far one process has followed a session that others append to.
type Followed = Option<(Cursor, Vec<RecordId>)>;

#[tokio::test]
async fn two_processes_on_one_file_lose_and_double_nothing() {
    let file = File::new();
    let mut children = [Process::start(&file.path(), TURNS_EACH), Process::start(&file.path(), TURNS_EACH)];
    let here = file.open().await;
    let mut acknowledged = HashSet::new();
    let mut followed = [const { None }; SESSIONS];
    while let Some(line) = children[0].line() {
        let session = acknowledged.len() % SESSIONS;
        acknowledged.insert(line);
        follow(&here, session, &mut followed[session]).await;
    }
    acknowledged.extend(children[1].rest());
    children.into_iter().for_each(Process::succeed);
    let stored = check(&here, &acknowledged).await;
    let expected = 2 * TURNS_EACH * SESSIONS;
    assert_eq!((acknowledged.len(), stored), (expected, expected));
    for (session, followed) in followed.iter_mut().enumerate() {
        let (_, seen) = follow(&here, session, followed).await;
        assert_eq!(*seen, load(&here, session).await, "turn by turn it is the same log as at once");
    }
}

#[tokio::test]
async fn a_process_killed_at_any_time_has_lost_no_turn_that_it_acknowledged() {
    let kills: u64 = env::var("SESSION_MEMORY_KILLS").map_or(20, |kills| kills.parse().unwrap());
    let file = File::new();
    let mut acknowledged = HashSet::new();
    let mut stored = 0;
    for kill in 0..kills {
        // Two at once: the survivor must get on with what the killed one left.
        let (mut killed, mut survivor) =
            (Process::start(&file.path(), usize::MAX), Process::start(&file.path(), usize::MAX));
        for _ in 0..1 + kill * 7919 % 97 {
            acknowledged.extend(killed.line());
        }
        acknowledged.extend(killed.kill());
        for _ in 0..20 {
            acknowledged.insert(survivor.line().expect("the survivor goes on"));
        }
        acknowledged.extend(survivor.kill());
        stored = check(&file.open().await, &acknowledged).await;
    }
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{} kills: {} turns acknowledged, {stored} stored, 0 lost, 0 doubled, 0 torn",
        kills * 2,
        acknowledged.len()
    )
    .unwrap();
    assert!(acknowledged.len() as u64 >= kills * 20, "the processes did hardly anything");
    let damage: String = file.sqlite().query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(damage, "ok");
}

/// The turns are large, so that logs are moved into the file while processes die.
#[tokio::test]
async fn processes_that_are_killed_while_logs_are_moved_into_the_file_lose_no_turn() {
    let file = File::new();
    let moved = || std::fs::metadata(file.path()).map_or(0, |metadata| metadata.len());
    let mut acknowledged = HashSet::new();
    let mut grew = 0;
    for kill in 0..5 {
        let before = moved();
        let start = || Process::start_with(&file.path(), usize::MAX, 100_000);
        let (mut killed, mut survivor) = (start(), start());
        for _ in 0..70 + kill * 7 {
            acknowledged.extend(killed.line());
        }
        acknowledged.extend(killed.kill());
        for _ in 0..20 {
            acknowledged.insert(survivor.line().expect("the survivor goes on"));
        }
        acknowledged.extend(survivor.kill());
        grew += usize::from(moved() > before);
        check(&file.open().await, &acknowledged).await;
    }
    assert!(grew > 0, "nothing was moved: the test tests nothing");
    let damage: String = file.sqlite().query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(damage, "ok");
}

/// Not a test: the process that the tests above start. By itself it appends a few turns to a file of its own.
#[tokio::test]
async fn the_process_that_appends() {
    let own = File::new();
    let path = env::var_os(FILE).map_or(own.path(), Into::into);
    let started_by_a_test = env::var_os(FILE).is_some();
    let turns: usize = env::var(TURNS).map_or(10, |turns| turns.parse().unwrap());
    let bytes: usize = env::var(BYTES).map_or(2000, |bytes| bytes.parse().unwrap());
    let store = SqliteStore::builder(path)
        .with_busy_timeout(PATIENCE)
        .with_retention(Retention::new().with_max_bytes(None))
        .open()
        .await
        .unwrap();
    let mut sessions = JoinSet::new();
    for session in 0..SESSIONS {
        let (store, key) = (store.clone(), key(&format!("session-{session}")));
        sessions.spawn(async move {
            let mut at = store.load(&key, None).await.unwrap().cursor;
            for number in 0..turns {
                let turn = turn(&key, &format!("{number} {}", "x".repeat(number % 5 * bytes)));
                match store.append(&key, &at, &turn).await.unwrap() {
                    Appended::Appended { cursor, .. } => at = cursor,
                    other => panic!("{other:?}"),
                }
                if started_by_a_test {
                    writeln!(std::io::stdout().lock(), "\nstored {session} {}", turn.id()).unwrap();
                }
            }
        });
    }
    sessions.join_all().await;
}

/// Loads what came since, which must continue what was seen.
async fn follow<'a>(
    store: &SqliteStore,
    session: usize,
    followed: &'a mut Followed,
) -> &'a mut (Cursor, Vec<RecordId>) {
    let after = followed.as_ref().map(|(cursor, _)| *cursor).filter(|cursor| cursor.count > 0);
    let loaded = store.load(&key(&format!("session-{session}")), after.as_ref()).await.unwrap();
    assert_eq!(loaded.from_start, after.is_none(), "what one process has seen, another never changes");
    let (cursor, seen) = followed.get_or_insert_with(|| (loaded.cursor, Vec::new()));
    *cursor = loaded.cursor;
    seen.extend(loaded.records.iter().map(|turn| turn.id()));
    followed.as_mut().unwrap()
}

/// The ids of a session, after a check that the session is whole.
async fn load(store: &SqliteStore, session: usize) -> Vec<RecordId> {
    let loaded = store.load(&key(&format!("session-{session}")), None).await.unwrap();
    assert_eq!(loaded.cursor.count, loaded.records.len() as u64);
    loaded.records.iter().map(|turn| turn.id()).collect()
}

/// Fails unless every acknowledged turn is stored, and every stored turn once; returns how many there are.
/// (A load fails on a record that is not whole.)
async fn check(store: &SqliteStore, acknowledged: &HashSet<String>) -> usize {
    let mut stored = HashSet::new();
    let mut count = 0;
    for session in 0..SESSIONS {
        for id in load(store, session).await {
            stored.insert(format!("stored {session} {id}"));
            count += 1;
        }
    }
    assert_eq!(count, stored.len(), "a turn is stored twice");
    let lost = acknowledged.difference(&stored).count();
    assert_eq!(lost, 0, "{lost} of {} acknowledged turns are lost", acknowledged.len());
    count
}

struct Process {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Process {
    fn start(path: &Path, turns: usize) -> Self {
        Self::start_with(path, turns, 2000)
    }

    fn start_with(path: &Path, turns: usize, bytes: usize) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args([
                "--exact",
                "sqlite::processes::the_process_that_appends",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(FILE, path)
            .env(TURNS, turns.to_string())
            .env(BYTES, bytes.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    /// The next turn that it says it stored.
    fn line(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.out.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if line.starts_with("stored ") && line.ends_with('\n') {
                return Some(line.trim_end().to_owned());
            }
        }
    }

    fn rest(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.line()).collect()
    }

    /// Kills it with SIGKILL, and returns what it said before.
    fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        let rest = self.rest();
        self.child.wait().unwrap();
        rest
    }

    fn succeed(mut self) {
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Gone already unless a test failed half way.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
