//! The store of one's own in `examples/custom_store`: the conformance suite, and what a crash leaves.

#[path = "../../examples/custom_store/store.rs"]
mod store;

use tempfile::TempDir;
use tower_session_memory::{
    store::{HistoryStore, Retention},
    testing::conformance::{Harness, Options},
};

use self::store::FileStore;
use crate::turns::{self, key};

/// A directory for each store, until the check ends.
struct InFiles(TempDir);

impl InFiles {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

impl Harness for InFiles {
    type Store = FileStore;

    async fn store(&self, options: &Options) -> FileStore {
        FileStore::open(self.0.path(), options.retention).unwrap()
    }
}

mod conformance {
    tower_session_memory::conformance_tests!(super::InFiles::new());
}

#[tokio::test]
async fn a_session_is_as_it_was_before_a_write_that_a_crash_cut() {
    let directory = tempfile::tempdir().unwrap();
    let store = FileStore::open(directory.path(), Retention::new()).unwrap();
    let key = key("a");
    let at = store.load(&key, None).await.unwrap().cursor;
    store.append(&key, &at, &turns::turn(&key, "hi")).await.unwrap();
    store.close().await;
    let file = directory.path().join(key.digest().to_hex());
    let whole = std::fs::read(file.with_extension("session")).unwrap();
    std::fs::write(file.with_extension("new"), &whole[..whole.len() / 2]).unwrap();
    let files = || std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(files(), 3, "the lock, the session, and what was written half");

    let again = FileStore::open(directory.path(), Retention::new()).unwrap();
    let loaded = again.load(&key, None).await.unwrap();
    assert_eq!(loaded.records.len(), 1, "what was written half is no session");
    assert_eq!(files(), 2, "and is removed");
    let second = turns::turn(&key, "again");
    again.append(&key, &loaded.cursor, &second).await.unwrap();
    assert_eq!(again.load(&key, None).await.unwrap().records.len(), 2);
}
