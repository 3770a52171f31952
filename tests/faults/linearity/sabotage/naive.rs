//! A small store in Redis, written as one writes it first: a list a session. One layout is right.

use bytes::Bytes;
use redis::{Cmd, FromRedisValue, aio::MultiplexedConnection};
use tokio::sync::Mutex;
use tower_session_memory::{
    history::{Record, RecordId},
    session::SessionKey,
    store::{
        Appended, Cursor, Durability, Epoch, HistoryStore, LoadOptions, Loaded, Page, Scope, SessionPage,
        StoreError, StoreErrorKind,
    },
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One list, checked and added to in one step.
    Right,
    /// The same, without looking whether the turn is there already.
    NoTurnIds,
    /// What counts is how far a counter of its own says that the list goes; it is moved in a second step.
    TwoKeys,
}

/// The list begins with the epoch, before it an `f` if no deletion was before; then come the turns, each after
/// its id.
const APPEND: &str = "
    local key, epoch, id, parent, record, new = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
    local first = redis.call('LINDEX', key, 0)
    if first and first:sub(2) ~= epoch and (first:sub(1, 1) ~= 'f' or epoch ~= string.rep('0', 32)) then
        return {'gone', '', 0}
    end
    local there = {}
    for _, item in ipairs(redis.call('LRANGE', key, 1, -1)) do there[item:sub(1, 32)] = true end
    if ARGV[6] == '1' and there[id] then return {'there', first:sub(2), redis.call('LLEN', key) - 1} end
    if parent ~= '' and not there[parent] then return {'gone', '', 0} end
    if not first then
        first = 'f' .. new
        redis.call('RPUSH', key, first)
    end
    return {'added', first:sub(2), redis.call('RPUSH', key, id .. record) - 1}";

const DELETE: &str = "
    redis.call('DEL', KEYS[1], KEYS[2])
    redis.call('RPUSH', KEYS[1], 't' .. ARGV[1])";

pub struct Naive {
    client: redis::Client,
    connection: Mutex<Option<MultiplexedConnection>>,
    layout: Layout,
}

impl Naive {
    pub async fn open(url: String, layout: Layout) -> Self {
        Self { client: redis::Client::open(url).unwrap(), connection: Mutex::default(), layout }
    }

    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreError> {
        let mut connection = self.connected().await.map_err(failed)?;
        let answer = command.query_async(&mut connection).await;
        if answer.is_err() {
            *self.connection.lock().await = None;
        }
        answer.map_err(failed)
    }

    async fn connected(&self) -> redis::RedisResult<MultiplexedConnection> {
        let mut connection = self.connection.lock().await;
        if connection.is_none() {
            *connection = Some(self.client.get_multiplexed_async_connection().await?);
        }
        Ok(connection.clone().unwrap())
    }
}

fn failed(error: redis::RedisError) -> StoreError {
    StoreError::with_source(StoreErrorKind::Timeout, error)
}

fn list(key: &SessionKey) -> String {
    format!("naive:{}", key.digest().to_hex())
}

fn counter(key: &SessionKey) -> String {
    format!("naive-count:{}", key.digest().to_hex())
}

fn hex(bytes: &[u8; 16]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn epoch(hex: &str) -> Epoch {
    Epoch::from_bytes(u128::from_str_radix(hex, 16).unwrap().to_be_bytes())
}

fn new_epoch() -> String {
    hex(Epoch::random().as_bytes())
}

impl HistoryStore for Naive {
    async fn load(&self, key: &SessionKey, _: impl Into<LoadOptions> + Send) -> Result<Loaded, StoreError> {
        let last = match self.layout {
            Layout::TwoKeys => {
                self.ask::<Option<i64>>(redis::cmd("GET").arg(counter(key))).await?.unwrap_or(0)
            }
            Layout::Right | Layout::NoTurnIds => -1,
        };
        let mut items: Vec<Vec<u8>> = self.ask(redis::cmd("LRANGE").arg(list(key)).arg(0).arg(last)).await?;
        let start = if items.is_empty() { None } else { Some(items.remove(0)) };
        let epoch = start.map_or(Epoch::UNBORN, |first| epoch(std::str::from_utf8(&first[1..]).unwrap()));
        let decode = |item: Vec<u8>| Record::decode(Bytes::from(item).slice(32..), key.digest());
        let turns = items.into_iter().map(decode).collect::<Result<Vec<_>, _>>();
        let turns = turns.map_err(|error| StoreError::with_source(StoreErrorKind::Corrupt, error))?;
        let cursor = Cursor { epoch, count: turns.len() as u64, newest: turns.last().map(Record::id) };
        Ok(Loaded::whole(cursor, turns))
    }

    async fn append(&self, key: &SessionKey, at: &Cursor, turn: &Record) -> Result<Appended, StoreError> {
        let id = |id: RecordId| hex(id.as_bytes());
        let mut append = redis::cmd("EVAL");
        append.arg(APPEND).arg(1).arg(list(key)).arg(hex(at.epoch.as_bytes())).arg(id(turn.id()));
        append.arg(turn.parent().record().map(id).unwrap_or_default());
        append.arg(&turn.bytes()[..]).arg(new_epoch());
        append.arg(if self.layout == Layout::NoTurnIds { "0" } else { "1" });
        let (what, now, count): (String, String, u64) = self.ask(&append).await?;
        if what == "gone" {
            return Ok(Appended::Gone);
        }
        if what == "added" && self.layout == Layout::TwoKeys {
            self.ask::<i64>(redis::cmd("INCR").arg(counter(key))).await?;
        }
        let cursor = Cursor { epoch: epoch(&now), count, newest: Some(turn.id()) };
        Ok(match what.as_str() {
            "added" => Appended::Appended { cursor, before: None },
            _ => Appended::AlreadyThere(cursor),
        })
    }

    async fn delete(&self, key: &SessionKey) -> Result<(), StoreError> {
        let mut delete = redis::cmd("EVAL");
        delete.arg(DELETE).arg(2).arg(list(key)).arg(counter(key)).arg(new_epoch());
        self.ask(&delete).await
    }

    async fn sessions(&self, _: &Scope, _: &Page) -> Result<SessionPage, StoreError> {
        Ok(SessionPage::default())
    }

    async fn durability(&self) -> Result<Durability, StoreError> {
        Ok(Durability::Unknown)
    }

    fn name(&self) -> &'static str {
        "naive"
    }

    crate::partial_store::nothing_but_sessions!();
}
