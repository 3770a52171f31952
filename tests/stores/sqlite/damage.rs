//! Files that are no database, damaged, full, or too new.

use std::{error::Error, fs};

use tower_session_memory::store::{
    HistoryStore, SqliteStore, StoreError, StoreErrorKind,
    sqlite::{OpenError, OpenProblem},
};

use crate::sqlite::support::{File, key, say, texts, turn};

async fn problem_of(path: impl Into<std::path::PathBuf>) -> OpenError {
    SqliteStore::open(path).await.expect_err("the file cannot be opened")
}

#[tokio::test]
async fn a_path_that_names_no_usable_file_is_refused_by_its_problem() {
    let file = File::new();
    let plain = file.directory().join("plain");
    fs::write(&plain, "text").unwrap();

    let error = problem_of(file.directory()).await;
    assert!(matches!(error.problem(), OpenProblem::IsDirectory), "{error}");
    assert!(error.to_string().contains("is a directory"), "{error}");
    for path in [file.directory().join("missing/sessions.db"), plain.join("sessions.db")] {
        let error = problem_of(&path).await;
        assert!(matches!(error.problem(), OpenProblem::CannotCreate(_)), "{error}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "the operator's own path: {error}");
    }
    for path in ["", ":memory:"] {
        let error = problem_of(path).await;
        assert!(matches!(error.problem(), OpenProblem::NoFile), "{error}");
    }
}

#[tokio::test]
async fn a_file_of_something_else_is_refused_and_left_alone() {
    let file = File::new();
    for bytes in [b"text".to_vec(), vec![7; 100_000], b"SQLite format 4\0".repeat(100)] {
        fs::write(file.path(), &bytes).unwrap();
        let error = problem_of(file.path()).await;
        assert!(matches!(error.problem(), OpenProblem::NotADatabase), "{error}");
        assert_eq!(fs::read(file.path()).unwrap(), bytes, "it is not ours to change");
    }
}

#[tokio::test]
async fn a_database_of_another_program_is_refused_and_left_alone() {
    let file = File::new();
    file.sqlite().execute_batch("CREATE TABLE sessions (row, epoch)").unwrap();
    let before = fs::read(file.path()).unwrap();
    let error = problem_of(file.path()).await;
    assert!(matches!(error.problem(), OpenProblem::OtherProgram), "{error}");
    assert_eq!(fs::read(file.path()).unwrap(), before, "it is not ours to change");
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_refused_by_its_version() {
    let file = File::new();
    file.open().await.close().await;
    file.sqlite().pragma_update(None, "user_version", 99).unwrap();
    let error = problem_of(file.path()).await;
    assert!(matches!(error.problem(), OpenProblem::NewerSchema { found: 99, known: 1 }), "{error}");
    assert!(error.to_string().contains("schema version 99"), "{error}");
}

#[tokio::test]
async fn a_file_that_lost_its_tables_is_refused() {
    let file = File::new();
    file.open().await.close().await;
    file.sqlite().execute_batch("DROP TABLE turns").unwrap();
    problem_of(file.path()).await;
}

#[tokio::test]
async fn a_damaged_file_is_an_error_and_never_a_shorter_conversation() {
    let file = File::new();
    let store = file.open().await;
    for number in 0..200 {
        say(&store, &key("a"), &format!("{number} {}", "x".repeat(1000))).await;
    }
    store.close().await;
    let whole = fs::read(file.path()).unwrap();
    let mut refused = 0;
    for page in 1..whole.len() / 4096 {
        let mut bytes = whole.clone();
        bytes[page * 4096..(page + 1) * 4096].fill(0xA5);
        fs::write(file.path(), &bytes).unwrap();
        let kind = match SqliteStore::open(file.path()).await {
            Err(error) => {
                assert!(matches!(error.problem(), OpenProblem::Corrupt(_)), "page {page}: {error}");
                StoreErrorKind::Corrupt
            }
            Ok(store) => match store.load(&key("a"), None).await {
                Err(error) => error.kind(),
                Ok(loaded) => {
                    assert_eq!(loaded.records.len(), 200, "page {page} was damaged, and turns are missing");
                    continue;
                }
            },
        };
        assert_eq!(kind, StoreErrorKind::Corrupt, "page {page}");
        refused += 1;
    }
    assert!(refused > 10, "only {refused} damages were met: the test tests nothing");
}

#[tokio::test]
async fn a_damaged_record_is_an_error_of_its_session_alone_and_a_deletion_heals_it() {
    let file = File::new();
    let store = file.open().await;
    let damages = [
        "UPDATE turns SET record = 'secret' WHERE session = 1 AND seq = 2",
        "UPDATE turns SET record = x'227365637265740a227365637265740a' WHERE session = 1 AND seq = 2",
        "UPDATE turns SET record = substr(record, 1, length(record) - 1) WHERE session = 1 AND seq = 2",
        "UPDATE turns SET record = (SELECT record FROM turns WHERE session = 2) WHERE session = 1 AND seq = 2",
        "UPDATE turns SET record = NULL WHERE session = 1 AND seq = 2",
        "DELETE FROM turns WHERE session = 1 AND seq = 2",
        "DELETE FROM turns WHERE session = 1 AND seq = 3",
        "UPDATE turns SET previous = (SELECT place FROM turns WHERE session = 2) WHERE session = 1 AND seq = 2",
        "UPDATE turns SET previous = place WHERE session = 1 AND seq = 2",
        "UPDATE turns SET previous = NULL WHERE session = 1 AND seq = 2",
        "UPDATE sessions SET touched = 1 WHERE row = 1",
        "UPDATE sessions SET epoch = x'00' WHERE row = 1",
        "UPDATE sessions SET count = -1 WHERE row = 1",
        "UPDATE sessions SET newest = NULL WHERE row = 1",
    ];
    for damage in damages {
        for (id, text) in [("a", "one"), ("b", "other"), ("a", "secret two"), ("a", "three")] {
            say(&store, &key(id), text).await;
        }
        let sqlite = file.sqlite();
        sqlite.pragma_update(None, "ignore_check_constraints", true).unwrap();
        let changed = match damage.contains("'secret'") {
            true => sqlite.execute(&damage.replace("'secret'", "CAST('secret' AS BLOB)"), []).unwrap(),
            false => sqlite.execute(damage, []).unwrap(),
        };
        assert_eq!(changed, 1, "{damage}");
        let error = store.load(&key("a"), None).await.expect_err(damage);
        assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{damage}");
        assert!(!all_texts(&error).contains("secret"), "content in an error: {}", all_texts(&error));
        assert_eq!(texts(&store, "b").await, ["other"], "{damage}");
        if damage.starts_with("UPDATE turns SET previous") || damage.starts_with("DELETE") {
            store.delete(&key("a")).await.unwrap();
            let left =
                sqlite.query_row("SELECT count(*) FROM turns", [], |row| row.get::<_, i64>(0)).unwrap();
            assert_eq!(left, 1, "{damage}");
            assert_eq!(texts(&store, "b").await, ["other"], "{damage}");
        }
        sqlite.execute_batch("DELETE FROM turns; DELETE FROM sessions").unwrap();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_what_does_not_fit_and_nothing_else() {
    let file = File::new();
    let store = file.builder().with_max_bytes(1024 * 1024).open().await.unwrap();
    say(&store, &key("small"), "one").await;
    let at = store.load(&key("large"), None).await.unwrap().cursor;
    let (mut large, mut small) = (tokio::task::JoinSet::new(), tokio::task::JoinSet::new());
    let start = store.load(&key("small"), None).await.unwrap().cursor;
    for number in 0..20 {
        let (one, other) = (store.clone(), store.clone());
        let too_large = turn(&key("large"), &"x".repeat(2 * 1024 * 1024));
        large.spawn(async move { one.append(&key("large"), &at, &too_large).await.map_err(|e| e.kind()) });
        let fits = turn(&key("small"), &number.to_string());
        small.spawn(async move { other.append(&key("small"), &start, &fits).await });
    }
    for answer in large.join_all().await {
        assert_eq!(answer, Err(StoreErrorKind::Unavailable), "there is no room for it");
    }
    for answer in small.join_all().await {
        answer.expect("there is room for it, whatever it shared its transaction with");
    }
    assert_eq!(texts(&store, "small").await.len(), 21);
    assert!(texts(&store, "large").await.is_empty(), "nothing of a refused turn is left");

    let mut filled = 0;
    let full = loop {
        let at = store.load(&key("filler"), None).await.unwrap().cursor;
        match store.append(&key("filler"), &at, &turn(&key("filler"), &"x".repeat(50_000))).await {
            Ok(_) => filled += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), StoreErrorKind::Unavailable);
    assert_eq!(texts(&store, "filler").await.len(), filled, "what was acknowledged is there");
    store.delete(&key("filler")).await.unwrap();
    say(&store, &key("filler"), &"y".repeat(50_000)).await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_was_deleted_or_replaced_takes_no_turn_that_nobody_would_find_again() {
    for replaced in [false, true] {
        let file = File::new();
        let store = file.open().await;
        say(&store, &key("a"), "one").await;
        let at = store.load(&key("a"), None).await.unwrap().cursor;
        let copy = file.directory().join("copy.db");
        fs::copy(file.path(), &copy).unwrap();
        if replaced {
            fs::rename(&copy, file.path()).unwrap();
        } else {
            fs::remove_file(file.path()).unwrap();
        }
        let error = store.append(&key("a"), &at, &turn(&key("a"), "two")).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Other, "neither done nor worth another try: {error:?}");
        assert!(store.load(&key("a"), None).await.is_err(), "the store has closed itself");
        store.close().await;
    }
}

fn all_texts(error: &StoreError) -> String {
    let mut texts = format!("{error} {error:?}");
    let mut source = error.source();
    while let Some(error) = source {
        texts.push_str(&format!(" {error} {error:?}"));
        source = error.source();
    }
    texts
}
