#![expect(clippy::unwrap_used, reason = "tests")]

use rusqlite::ffi;

use super::*;
use crate::session::Principal;

fn deletion() -> (Write, oneshot::Receiver<Result<Done, StoreError>>) {
    write(Work::Delete { key: SessionKey::new("test", Principal::anonymous(), "a".parse().unwrap()) })
}

fn write(work: Work) -> (Write, oneshot::Receiver<Result<Done, StoreError>>) {
    let (answer, answered) = oneshot::channel();
    (Write { work, deadline: Instant::now() + Duration::from_secs(60), answer }, answered)
}

fn error(code: i32) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
}

/// A store that has just one thread: the test's.
fn writer() -> Writer {
    writer_and_file().1
}

fn writer_and_file() -> (tempfile::TempDir, Writer) {
    let (directory, connection, checkpoints) = checkpoints::tests::file(checkpoints::WAL);
    let writer = Writer {
        connection,
        checkpoints,
        writes: Arc::new(Queue::new(8)),
        reads: Arc::new(Queue::new(8)),
        inline: Arc::new(InlineReader::new(Vec::new())),
        readers: Vec::new(),
        retention: Retention::default(),
        clock: Clock::default(),
        patience: Duration::ZERO,
        sweep_interval: Duration::from_secs(60),
        file: FileId::of(std::path::Path::new("/")),
        failed: false,
        last: Batch::default(),
    };
    (directory, writer)
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_acknowledged_any_more() {
    let mut writer = writer();
    let (failed, first) = deletion();
    let (waiting, second) = deletion();
    let (late, third) = deletion();
    writer.writes.push(waiting).await.ok().unwrap();
    writer.fail(vec![failed], &error(ffi::SQLITE_IOERR_FSYNC));
    writer.commit(vec![late]);
    for answer in [first, second, third] {
        let error = answer.await.unwrap().err().unwrap();
        assert_eq!(error.kind(), StoreErrorKind::Other, "neither done nor worth another try");
    }
    assert!(writer.writes.push(deletion().0).await.is_err(), "the store takes nothing more");
    assert!(writer.reads.abandon().is_empty(), "nor does it answer loads");
}

#[tokio::test]
async fn a_failed_sync_of_a_checkpoint_closes_the_store_and_another_failure_does_not() {
    let mut writer = writer();
    for code in [ffi::SQLITE_FULL, ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_BUSY] {
        writer.checkpoints.fail(error(code));
        writer.tend_the_log();
        assert!(!writer.failed, "the log has all that could not be moved");
    }
    assert!(writer.writes.push(deletion().0).await.is_ok());
    writer.checkpoints.fail(error(ffi::SQLITE_IOERR_FSYNC));
    writer.tend_the_log();
    assert!(writer.failed);
    assert!(writer.writes.push(deletion().0).await.is_err(), "the store takes nothing more");
}

#[test]
fn after_a_failed_sync_of_a_checkpoint_the_log_stays_when_the_store_is_closed() {
    for (code, stays) in [(ffi::SQLITE_IOERR_FSYNC, true), (ffi::SQLITE_FULL, false)] {
        let (directory, mut writer) = writer_and_file();
        checkpoints::tests::write(&writer.connection);
        writer.checkpoints.fail(error(code));
        writer.writes.close();
        writer.run();
        let log = std::fs::metadata(directory.path().join("sessions.db-wal"));
        assert_eq!(log.is_ok_and(|log| log.len() > 4000), stays, "{code}");
    }
}

#[tokio::test]
async fn two_steps_of_erasures_are_never_in_one_transaction() {
    let scope = Scope { namespace: "test".to_owned(), principal: Principal::anonymous() };
    let erasure = || write(Work::DeletePrincipal { scope: scope.clone(), most: 64 }).0;
    let writer = writer();
    for waiting in [erasure(), deletion().0, erasure()] {
        writer.writes.push(waiting).await.ok().unwrap();
    }
    assert_eq!(writer.batch(erasure()).len(), 1);
    let Popped::Job(next) = writer.writes.pop(Duration::ZERO) else { panic!("the others still wait") };
    assert_eq!(writer.batch(next).len(), 2, "with the deletion that waits behind it");
    assert_eq!(writer.batch(deletion().0).len(), 2, "behind a deletion");
}

#[test]
fn a_failed_sync_is_told_from_other_failures() {
    for code in [ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_DIR_FSYNC] {
        assert!(is_failed_sync(&error(code)));
    }
    for code in [ffi::SQLITE_IOERR, ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_FULL, ffi::SQLITE_BUSY] {
        assert!(!is_failed_sync(&error(code)));
        assert_eq!(store_error(error(code)).kind(), StoreErrorKind::Unavailable);
    }
}

#[test]
fn a_change_that_waited_too_long_is_refused_and_not_done() {
    let mut writer = writer();
    let (mut late, mut answer) = deletion();
    late.deadline = Instant::now();
    writer.commit(vec![late]);
    let error = answer.try_recv().unwrap().err().unwrap();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
}
