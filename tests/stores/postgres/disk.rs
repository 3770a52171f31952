//! A disk that is full.

use std::{os::unix::fs::MetadataExt, process::Command};

use tower_session_memory::store::PostgresStore;

use super::{
    load::Load,
    support::{key, say, texts},
};
use crate::servers::Postgres;

/// A small file system; it is gone with its value.
struct Small {
    path: String,
}

impl Small {
    /// The server's own.
    fn of(server: &Postgres) -> Self {
        let path = server.file("small");
        std::fs::create_dir(&path).unwrap();
        let owner = std::fs::metadata(server.file("data")).unwrap().uid();
        as_root(&["mount", "-t", "tmpfs", "-o", &format!("size=2m,uid={owner}"), "tmpfs", &path]);
        Self { path }
    }

    /// Takes all room that is left.
    fn fill(&self) {
        let filler = std::fs::File::create(self.filler()).unwrap();
        let full = std::io::copy(&mut std::io::repeat(0), &mut &filler).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }

    fn make_room(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> String {
        format!("{}/filler", self.path)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        as_root(&["umount", "--lazy", &self.path]);
    }
}

fn as_root(command: &[&str]) {
    let me = Command::new("id").arg("-u").output().unwrap();
    let sudo = if me.stdout.trim_ascii() == b"0" { vec![] } else { vec!["sudo", "-n"] };
    let words = [&sudo[..], command].concat();
    let status = Command::new(words[0]).args(&words[1..]).status().unwrap();
    assert!(status.success(), "{words:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "mounts a file system, as root or by sudo: tests/run.sh --full"]
async fn a_disk_that_is_full_under_load_refuses_turns_for_now_and_loses_none() {
    let server = Postgres::start();
    let disk = Small::of(&server);
    server.psql(&format!("CREATE TABLESPACE small LOCATION '{}'", disk.path));
    let url = format!("{}?options=-c%20default_tablespace%3Dsmall", server.url());
    let stores = [PostgresStore::builder(&url).open().await.unwrap()];
    say(&stores[0], &key("before"), "one").await;
    let load = Load::start(&stores, 12);
    for _ in 0..3 {
        load.progress(20).await;
        disk.fill();
        load.trouble(50).await;
        assert_eq!(texts(&stores[0], &key("before")).await, ["one"], "what is there can be read");
        disk.make_room();
        load.progress(20).await;
    }
    load.finish(&stores[0]).await.check("3 times a full disk");
}
