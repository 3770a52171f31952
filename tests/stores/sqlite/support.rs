use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;
use tower_session_memory::store::{SqliteStore, sqlite::SqliteBuilder};

pub(crate) use crate::turns::{after, key, say, turn, turn_from};

/// How long a call may take on a machine that has other things to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A place for a database of its own.
pub(crate) struct File {
    directory: TempDir,
}

impl File {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("sessions.db")
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn builder(&self) -> SqliteBuilder {
        SqliteStore::builder(self.path()).with_busy_timeout(PATIENCE)
    }

    pub(crate) async fn open(&self) -> SqliteStore {
        self.builder().open().await.unwrap()
    }

    /// The same file, past the store.
    pub(crate) fn sqlite(&self) -> rusqlite::Connection {
        let connection = rusqlite::Connection::open(self.path()).unwrap();
        connection.busy_timeout(PATIENCE).unwrap();
        connection
    }
}

/// What was said in a session.
pub(crate) async fn texts(store: &SqliteStore, id: &str) -> Vec<String> {
    crate::turns::texts(store, &key(id)).await
}
