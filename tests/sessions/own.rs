//! Stores that a test has for itself, servers included, so that it may look at all of it and change it.

use std::{fs, path::Path};

use crate::{
    common::*,
    servers::{Postgres, Redis},
};

/// Makes a test of each scenario on each of these stores.
macro_rules! on_own_stores {
    ($($scenario:ident)+) => {
        on_own_store!(sqlite = Own::Sqlite; $($scenario)+);
        on_own_store!(redis = Own::redis(); $($scenario)+);
        on_own_store!(postgres = Own::postgres(); $($scenario)+);
    };
}

macro_rules! on_own_store {
    ($module:ident = $own:expr; $($scenario:ident)+) => {
        mod $module {
            use crate::own::Own;
            $(#[tokio::test] async fn $scenario() { super::$scenario($own).await; })+
        }
    };
}

/// A store that no other test uses.
pub enum Own {
    Sqlite,
    Redis(Redis),
    Postgres(Postgres),
}

impl Own {
    /// Everything is in the append-only file and the log of slow commands, and nothing is compressed.
    pub fn redis() -> Self {
        let always = ["--appendonly", "yes", "--appendfsync", "always"];
        let told = ["--rdbcompression", "no", "--slowlog-log-slower-than", "0"];
        Self::Redis(Redis::start_with(&[always, told].concat()))
    }

    /// The server writes every statement with its parameters into its log.
    pub fn postgres() -> Self {
        Self::Postgres(Postgres::start_with(&["log_statement=all"]))
    }

    pub fn launch(&self, upstream: &Upstream) -> Launch {
        let launch = Launch::new(&upstream.url());
        match self {
            Self::Sqlite => launch,
            Self::Redis(server) => launch.store(&server.url()),
            Self::Postgres(server) => launch.store(&server.url()),
        }
    }

    /// All that access to the store reveals.
    pub fn dump(&self, launch: &Launch) -> Vec<u8> {
        let mut dump = Vec::new();
        match self {
            Self::Sqlite => files_in(launch.dir(), &mut dump),
            Self::Redis(server) => {
                for key in server.cli(&["keys", "*"]).lines() {
                    for command in ["dump", "get"] {
                        dump.extend(server.cli(&[command, key]).into_bytes());
                    }
                    dump.extend(server.cli(&["zrange", key, "0", "-1"]).into_bytes());
                }
                dump.extend(server.cli(&["slowlog", "get", "1000"]).into_bytes());
                assert_eq!(server.cli(&["save"]), "OK");
                files_in(server.directory(), &mut dump);
            }
            Self::Postgres(server) => {
                let tables = server.psql("SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 'session_memory'");
                for table in tables.lines() {
                    dump.extend(server.psql(&format!("SELECT t::text FROM {table} t")).into_bytes());
                }
                server.psql("CHECKPOINT");
                files_in(server.directory(), &mut dump);
            }
        }
        dump
    }
}

fn files_in(directory: &Path, bytes: &mut Vec<u8>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => files_in(&entry.path(), bytes),
            // A file of the server's may go while it is looked at.
            kind if kind.is_file() => bytes.extend(fs::read(entry.path()).unwrap_or_default()),
            _ => {}
        }
    }
}
