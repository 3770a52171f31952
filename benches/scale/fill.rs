//! The stores, and how they are filled past themselves.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;
use tower_session_memory::{
    session::{Principal, SessionKey},
    store::{Cursor, DynHistoryStore, Epoch, PostgresStore, RedisStore, SqliteStore},
};

use crate::{
    common::cpu,
    error::BoxError,
    servers::{Postgres, Redis},
    turns,
};

/// The principal of every second session: its sessions are what is erased.
pub(crate) const ERASED: &str = "erased";

/// Sessions that are filled in at once.
const FILLERS: usize = 64;

pub(crate) type Store = Arc<dyn DynHistoryStore>;

/// Number of times per second (`hz`) that an idle Redis rehashes, for a millisecond each.
const REHASHES: &str = "500";
const REHASHED_WITHIN: Duration = Duration::from_secs(600);

/// A store, and the way behind it.
pub(crate) struct Filled {
    pub(crate) store: Store,
    behind: Behind,
}

enum Behind {
    File(Box<rusqlite::Connection>),
    Redis(Redis),
    Postgres(Postgres),
}

impl Filled {
    pub(crate) async fn start(store: &str, directory: &Path, name: &str) -> Result<Self, BoxError> {
        Ok(match store {
            "redis" => {
                let server =
                    Redis::start_with(&["--appendonly", "no", "--save", "", "--enable-debug-command", "yes"]);
                let store = RedisStore::builder(server.url()).open().await?;
                Self { store: Arc::new(store), behind: Behind::Redis(server) }
            }
            "postgres" => {
                let server = Postgres::start();
                let store = PostgresStore::builder(server.url()).open().await?;
                Self { store: Arc::new(store), behind: Behind::Postgres(server) }
            }
            _ => {
                let path = directory.join(name);
                let store = SqliteStore::open(&path).await?;
                let file = rusqlite::Connection::open(&path)?;
                file.busy_timeout(Duration::from_secs(60))?;
                file.execute_batch("PRAGMA synchronous = OFF; PRAGMA cache_size = -262144")?;
                Self { store: Arc::new(store), behind: Behind::File(Box::new(file)) }
            }
        })
    }

    /// Adds sessions of one turn of 300 bytes, which are no records and never loaded.
    pub(crate) fn add(&self, from: usize, to: usize) -> Result<(), BoxError> {
        match &self.behind {
            Behind::File(file) => {
                file.execute_batch(&of_these(SQLITE, from, to))?;
            }
            Behind::Redis(server) => {
                for start in (from..to).step_by(10_000) {
                    let end = to.min(start + 10_000) - 1;
                    let done = server.cli(&["eval", REDIS, "0", &start.to_string(), &end.to_string()]);
                    if done.trim() != "1" {
                        return Err(done.into());
                    }
                }
            }
            Behind::Postgres(server) => {
                server.psql(&of_these(POSTGRES, from, to));
            }
        }
        Ok(())
    }

    /// Adds sessions that an erasure finds: half of one principal, half of a thousand others, all of them a day old.
    pub(crate) async fn add_erasable(&self, sessions: usize) -> Result<(), BoxError> {
        let half = format!("CASE WHEN {{n}} % 2 = 0 THEN '{ERASED}' ELSE 'principal-' || {{n}} % 1000 END");
        match &self.behind {
            Behind::File(file) => {
                let principal = half.replace("{n}", "n");
                let day_old = "CAST(strftime('%s') AS INTEGER) * 1000 - 86400000";
                let sql = SQLITE.replace("'principal-' || (n % 1000)", &principal);
                file.execute_batch(&of_these(
                    &sql.replace(", 0, 0, 9", &format!(", {day_old}, {day_old}, 9")),
                    0,
                    sessions,
                ))?;
            }
            Behind::Postgres(server) => {
                let principal = half.replace("{n}", "n");
                let sql = POSTGRES.replace("'principal-' || n % 1000", &principal);
                let sql = sql.replace(
                    "now(), now(), now() +",
                    "now() - interval '1 day', now() - interval '1 day', now() +",
                );
                server.psql(&of_these(&sql, 0, sessions));
            }
            // A log names the digest of its key, which no script of the server's can make.
            Behind::Redis(_) => self.append_erasable(sessions).await?,
        }
        Ok(())
    }

    async fn append_erasable(&self, sessions: usize) -> Result<(), BoxError> {
        let mut tasks = JoinSet::new();
        for part in 0..FILLERS {
            let store = self.store.clone();
            tasks.spawn(async move {
                let text = "x".repeat(30);
                for n in (part..sessions).step_by(FILLERS) {
                    let principal =
                        if n % 2 == 0 { ERASED.to_owned() } else { format!("principal-{}", n % 1000) };
                    let id = format!("filler-{n}").parse()?;
                    let key = SessionKey::new("test", Principal::new(principal), id);
                    let turn = turns::turn(&key, &format!(r#"{{"role":"user","content":"{text}"}}"#));
                    store.append_dyn(&key, &Cursor::start_of(Epoch::UNBORN), &turn).await?;
                }
                Ok::<_, BoxError>(())
            });
        }
        tasks.join_all().await.into_iter().collect()
    }

    /// Brings what fills the store to rest: nothing of it is to be done while it is measured.
    pub(crate) async fn settle(&self) -> Result<(), BoxError> {
        match &self.behind {
            Behind::File(file) => file.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?,
            Behind::Redis(server) => {
                // While a table grows to its next size, each call moves a part of it.
                let usual = server.cli(&["config", "get", "hz"]);
                let usual = usual.lines().last().ok_or("Redis does not tell its hz")?;
                server.cli(&["config", "set", "hz", REHASHES]);
                let give_up = Instant::now() + REHASHED_WITHIN;
                loop {
                    let tables = server.cli(&["debug", "htstats", "0"]);
                    if !tables.contains("Hash table 0 stats (main hash table)") {
                        return Err(format!("Redis does not tell of its tables: {tables}").into());
                    }
                    if !tables.contains("rehashing target") {
                        break;
                    }
                    if Instant::now() > give_up {
                        return Err("Redis is still rehashing".into());
                    }
                    tokio::time::sleep(Duration::from_secs(5)).await;
                }
                server.cli(&["config", "set", "hz", usual]);
            }
            Behind::Postgres(server) => {
                server.psql("VACUUM ANALYZE");
                server.psql("CHECKPOINT");
            }
        }
        Ok(())
    }

    /// CPU time of the server's processes; none without a server.
    pub(crate) fn server_cpu(&self) -> Duration {
        let pids = match &self.behind {
            Behind::File(_) => Vec::new(),
            Behind::Redis(server) => {
                let info = server.cli(&["info", "server"]);
                let pid = info.lines().find_map(|line| line.strip_prefix("process_id:"));
                pid.map(|pid| pid.trim().to_owned()).into_iter().collect()
            }
            Behind::Postgres(server) => server.pids(),
        };
        pids.iter().filter_map(|pid| cpu::of(pid.parse().ok()?)).sum()
    }
}

fn of_these(sql: &str, from: usize, to: usize) -> String {
    sql.replace("$FROM", &from.to_string()).replace("$TO", &(to - 1).to_string())
}

const SQLITE: &str = "
    BEGIN IMMEDIATE;
    CREATE TEMP TABLE base AS SELECT coalesce(max(place), 0) - $FROM + 1 AS at FROM turns;
    CREATE TEMP TABLE start AS SELECT coalesce(max(row), 0) AS row FROM sessions;
    INSERT INTO sessions (namespace, principal, id, epoch, fresh, count, trimmed, newest, highest, bytes, opened, touched,
                          slot, created_at, updated_at, expires, sweep_from)
        WITH RECURSIVE numbers (n) AS (SELECT $FROM UNION ALL SELECT n + 1 FROM numbers WHERE n < $TO)
        SELECT 'test', 'principal-' || (n % 1000), 'filler-' || n, randomblob(16), 1, 1, 0, randomblob(16), NULL, 300, 1,
               base.at + n, (base.at + n) / 16384, 0, 0, 9000000000000, 9000000000000 + n % 1000
        FROM numbers, base;
    INSERT INTO turns (place, session, seq, id, opens, record)
        SELECT touched, row, 1, newest, 1, zeroblob(300) FROM sessions
        WHERE row > (SELECT row FROM start) ORDER BY row;
    DROP TABLE base;
    DROP TABLE start;
    COMMIT;";

const REDIS: &str = "
    local text = string.rep('x', 300)
    for n = tonumber(ARGV[1]), tonumber(ARGV[2]) do
      local id = string.format('%032x', n)
      redis.call('SET', 'session-memory:log:{' .. id .. '}:4:test:filler:' .. n, text .. id, 'PX', 2592000000)
    end
    return 1";

const POSTGRES: &str = "
    SET synchronous_commit = off;
    SET session_replication_role = replica;
    WITH added AS (
        INSERT INTO session_memory.sessions (namespace, principal, id, epoch, fresh, count, trimmed, newest, bytes,
                                             opened, touched, created_at, updated_at, expires_at)
        SELECT 'test', 'principal-' || n % 1000, 'filler-' || n, gen_random_uuid(), true, 1, 0, gen_random_uuid(), 576, 1,
               nextval('session_memory.touches'), now(), now(), now() + interval '30 days'
        FROM generate_series($FROM, $TO) n
        RETURNING session, newest
    )
    INSERT INTO session_memory.turns (session, seq, id, opens, record)
    SELECT session, 1, newest, true, decode(repeat(md5(session::text), 18), 'hex') FROM added";
