//! Stores whose insides tests may read and change, like an attacker with access to the server.

use std::sync::{
    Arc, LazyLock, Mutex, PoisonError, Weak,
    atomic::{AtomicU32, Ordering},
};

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use tempfile::TempDir;
use tower_session_memory::{
    history::RecordId,
    session::SessionKey,
    store::{HistoryStore, PostgresStore, RedisStore, SqliteStore},
};
use uuid::Uuid;

use super::support::PATIENCE;
use crate::servers::{Postgres, Redis};

pub(crate) use super::support::Shelf;

/// A store, and a way past it. What is put in place of a log's records counts and names the newest of them right:
/// an attacker that can change one byte can change more.
pub(crate) trait Inside: Sized {
    type Store: HistoryStore + Clone + 'static;

    /// In how many ways each byte is flipped, unless `SESSION_MEMORY_FLIPS` says otherwise.
    const FLIPS: usize = 1;

    /// One that holds nothing.
    async fn new() -> Self;

    fn store(&self) -> Self::Store;

    /// What is stored of a session, in its order.
    async fn records(&self, key: &SessionKey) -> Vec<Bytes>;

    /// Puts these records in place of those that a session has.
    async fn put(&self, key: &SessionKey, records: &[Bytes]);
}

/// Makes tests of functions that are generic over an [`Inside`].
macro_rules! on_every_store {
    (@on $name:ident $inside:ident $($test:ident)+) => {
        mod $name {
            $(
                #[tokio::test]
                async fn $test() {
                    super::$test::<crate::wrappers::inside::$inside>().await;
                }
            )+
        }
    };
    ($($test:ident)+) => {
        $crate::wrappers::inside::on_every_store! { @on in_memory Shelf $($test)+ }
        $crate::wrappers::inside::on_every_store! { @on on_sqlite InSqlite $($test)+ }
        $crate::wrappers::inside::on_every_store! { @on on_redis InRedis $($test)+ }
        $crate::wrappers::inside::on_every_store! { @on on_postgres InPostgres $($test)+ }
    };
}
pub(crate) use on_every_store;

/// What the byte at this place is flipped by: each of its bits in turn, then all.
pub(crate) fn flips<I: Inside>(at: usize) -> impl Iterator<Item = u8> {
    let asked = std::env::var("SESSION_MEMORY_FLIPS").ok().map(|count| count.parse().unwrap());
    let bits = (0..8).map(move |bit| 1 << ((at + bit) % 8));
    bits.chain([255]).take(asked.unwrap_or(I::FLIPS))
}

/// The id that a record names, damaged or not; anything if it names none.
fn id_of(record: &[u8]) -> RecordId {
    let name = br#""id":""#;
    let at = record.windows(name.len()).position(|bytes| bytes == name).map_or(0, |at| at + name.len());
    let id = record.get(at..at + 36).and_then(|id| std::str::from_utf8(id).ok());
    let id = id.and_then(|id| Uuid::parse_str(id).ok()).filter(|id| !id.is_nil());
    RecordId::from_bytes(*id.unwrap_or(Uuid::max()).as_bytes())
}

fn hex(id: RecordId) -> String {
    id.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A name that no other test uses.
pub(crate) fn unused() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

impl Inside for Shelf {
    type Store = Self;

    const FLIPS: usize = 9;

    async fn new() -> Self {
        Self::default()
    }

    fn store(&self) -> Self {
        self.clone()
    }

    async fn records(&self, key: &SessionKey) -> Vec<Bytes> {
        self.log(key).records
    }

    async fn put(&self, key: &SessionKey, records: &[Bytes]) {
        self.tamper(key, |log| log.records = records.to_vec());
    }
}

pub(crate) struct InSqlite {
    store: SqliteStore,
    file: Mutex<rusqlite::Connection>,
    _directory: TempDir,
}

impl Inside for InSqlite {
    type Store = SqliteStore;

    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sessions.db");
        let store = SqliteStore::open(&path).await.unwrap();
        let file = rusqlite::Connection::open(&path).unwrap();
        file.execute_batch("PRAGMA synchronous = OFF").unwrap();
        Self { store, file: Mutex::new(file), _directory: directory }
    }

    fn store(&self) -> SqliteStore {
        self.store.clone()
    }

    async fn records(&self, key: &SessionKey) -> Vec<Bytes> {
        let file = self.file.lock().unwrap();
        let mut records = file
            .prepare(
                "SELECT record FROM turns JOIN sessions ON row = session WHERE sessions.id = ?1 ORDER BY seq",
            )
            .unwrap();
        let records =
            records.query_map([key.id().as_str()], |row| Ok(Bytes::from(row.get::<_, Vec<u8>>(0)?)));
        records.unwrap().map(Result::unwrap).collect()
    }

    async fn put(&self, key: &SessionKey, records: &[Bytes]) {
        let mut file = self.file.lock().unwrap();
        let change = file.transaction().unwrap();
        let session: i64 = change
            .query_row(
                "UPDATE sessions SET count = ?2, newest = ?3 WHERE id = ?1 RETURNING row",
                (
                    key.id().as_str(),
                    records.len() as i64,
                    records.last().map(|record| *id_of(record).as_bytes()),
                ),
                |row| row.get(0),
            )
            .unwrap();
        change.execute("DELETE FROM turns WHERE session = ?1", [session]).unwrap();
        let mut previous = None;
        for (seq, record) in (1_i64..).zip(records) {
            let turn = (session, seq, previous, *id_of(record).as_bytes(), &record[..]);
            change
                .execute(
                    "INSERT INTO turns (session, seq, previous, id, opens, record) VALUES (?1, ?2, ?3, ?4, 1, ?5)",
                    turn,
                )
                .unwrap();
            previous = Some(change.last_insert_rowid());
        }
        change.execute("UPDATE sessions SET touched = ?2 WHERE row = ?1", (session, previous)).unwrap();
        change.commit().unwrap();
    }
}

/// One server for the tests that run at the same time.
pub(crate) fn redis_server() -> Arc<Redis> {
    static SLOT: Mutex<Weak<Redis>> = Mutex::new(Weak::new());
    let mut slot = SLOT.lock().unwrap_or_else(PoisonError::into_inner);
    slot.upgrade().unwrap_or_else(|| {
        let started = Arc::new(Redis::start());
        *slot = Arc::downgrade(&started);
        started
    })
}

pub(crate) struct InRedis {
    store: RedisStore,
    raw: MultiplexedConnection,
    prefix: String,
    _server: Arc<Redis>,
}

impl InRedis {
    pub(crate) async fn value(&self, key: &SessionKey) -> Bytes {
        let value: Vec<u8> =
            redis::cmd("GET").arg(self.name(key)).query_async(&mut self.raw.clone()).await.unwrap();
        value.into()
    }

    pub(crate) async fn put_value(&self, key: &SessionKey, value: &[u8]) {
        let mut set = redis::cmd("SET");
        set.arg(self.name(key)).arg(value).arg("KEEPTTL");
        set.query_async::<()>(&mut self.raw.clone()).await.unwrap();
    }

    fn name(&self, key: &SessionKey) -> String {
        format!("{}:log:{{{}}}:{}", self.prefix, key.digest().to_hex(), key.encode())
    }
}

impl Inside for InRedis {
    type Store = RedisStore;

    async fn new() -> Self {
        let (server, prefix) = (redis_server(), unused());
        let store = RedisStore::builder(format!("{}?prefix={prefix}", server.url()));
        let store = store.with_timeouts(PATIENCE, PATIENCE).open().await.unwrap();
        let raw = redis::Client::open(server.url()).unwrap();
        let patient = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        let raw = raw.get_multiplexed_async_connection_with_config(&patient).await.unwrap();
        Self { store, raw, prefix, _server: server }
    }

    fn store(&self) -> RedisStore {
        self.store.clone()
    }

    async fn records(&self, key: &SessionKey) -> Vec<Bytes> {
        let value = self.value(key).await;
        let mut records = Vec::new();
        let mut rest = value.slice(line(&value) + 1..);
        while !rest.is_empty() {
            let frame: serde_json::Value = serde_json::from_slice(&rest[..line(&rest)]).unwrap();
            let record = line(&rest) + 1;
            let end = record + frame["len"].as_u64().unwrap() as usize;
            records.push(rest.slice(record..end));
            rest = rest.slice(end + 1..);
        }
        records
    }

    async fn put(&self, key: &SessionKey, records: &[Bytes]) {
        let value = self.value(key).await;
        let header: serde_json::Value = serde_json::from_slice(&value[..line(&value)]).unwrap();
        let head = header["head"].as_u64().unwrap() as usize;
        let (mut frames, mut last) = (Vec::new(), 0);
        for record in records {
            let (place, back) = (head + frames.len(), if last == 0 { 0 } else { head + frames.len() - last });
            let (turn, len) = (hex(id_of(record)), record.len());
            frames.extend(
                format!("{{\"turn\":\"{turn}\",\"len\":{len:10},\"back\":{back:10},\"opens\":1}}\n").bytes(),
            );
            frames.extend(&record[..]);
            frames.push(b'\n');
            last = place;
        }
        let newest = records.last().map_or("0".repeat(32), |record| hex(id_of(record)));
        let header = format!(
            "{{\"v\":\"1.0\",\"head\":{head:5},\"session\":{},\"epoch\":{},\"fresh\":{},\"count\":{:10},\
             \"trimmed\":{:10},\"at\":{:16},\"created\":{:16},\"newest\":\"{newest}\",\"highest\":\"{newest}\",\"ids\":{:6},\
             \"first\":{head:10},\"last\":{last:10},\"opened\":{last:10},\"model\":{:10},\"title\":{:10}}}\n",
            header["session"],
            header["epoch"],
            header["fresh"],
            records.len(),
            0,
            header["at"].as_u64().unwrap(),
            header["created"].as_u64().unwrap(),
            0,
            0,
            0,
        );
        assert_eq!(header.len(), head, "the layout is the one that is documented");
        self.put_value(key, &[header.as_bytes(), &frames].concat()).await;
    }
}

/// Where the first line feed is.
fn line(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| *byte == b'\n').unwrap()
}

/// A static is never dropped: the server's guard ends it with this process.
pub(crate) static POSTGRES: LazyLock<Postgres> = LazyLock::new(Postgres::start);

pub(crate) struct InPostgres {
    store: PostgresStore,
    raw: tokio_postgres::Client,
}

impl Inside for InPostgres {
    type Store = PostgresStore;

    async fn new() -> Self {
        let schema = unused();
        let store = PostgresStore::builder(POSTGRES.url()).with_schema(&schema);
        let store = store.with_timeout(PATIENCE).with_connect_timeout(PATIENCE).open().await.unwrap();
        let (raw, connection) =
            tokio_postgres::connect(&POSTGRES.url(), tokio_postgres::NoTls).await.unwrap();
        #[expect(clippy::disallowed_methods, reason = "it ends with the test")]
        tokio::spawn(connection);
        let setup =
            format!("SET synchronous_commit = off; SET search_path = {schema}; DROP INDEX turns_by_id");
        raw.batch_execute(&setup).await.unwrap();
        Self { store, raw }
    }

    fn store(&self) -> PostgresStore {
        self.store.clone()
    }

    async fn records(&self, key: &SessionKey) -> Vec<Bytes> {
        let sql = "SELECT record FROM turns JOIN sessions s USING (session) WHERE s.id = $1 ORDER BY seq";
        let rows = self.raw.query(sql, &[&key.id().as_str()]).await.unwrap();
        rows.iter().map(|row| Bytes::from(row.get::<_, Vec<u8>>(0))).collect()
    }

    async fn put(&self, key: &SessionKey, records: &[Bytes]) {
        let ids: Vec<Uuid> =
            records.iter().map(|record| Uuid::from_bytes(*id_of(record).as_bytes())).collect();
        let bytes: Vec<&[u8]> = records.iter().map(|record| &record[..]).collect();
        let sql = "
            WITH s AS (UPDATE sessions SET count = $2, newest = $3 WHERE id = $1 RETURNING session),
                 gone AS (DELETE FROM turns WHERE session = (SELECT session FROM s) AND seq > $2),
                 new AS (SELECT * FROM unnest($4::uuid[], $5::bytea[]) WITH ORDINALITY AS n (id, record, seq))
            INSERT INTO turns (session, seq, id, opens, record) SELECT session, seq, new.id, true, record FROM s, new
            ON CONFLICT (session, seq) DO UPDATE SET id = excluded.id, record = excluded.record";
        let newest = ids.last();
        self.raw
            .execute(sql, &[&key.id().as_str(), &(ids.len() as i64), &newest, &ids, &bytes])
            .await
            .unwrap();
    }
}
