use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tower_session_memory::{
    history::{Author, Parent, Record, RecordId},
    session::SessionKey,
    store::{
        Appended, Cursor, Durability, Epoch, HistoryStore, LoadOptions, Loaded, Page, Scope, SessionPage,
        StoreError, encrypted::KeyRing,
    },
};

use crate::turns::{add, message, parts};

pub(crate) use crate::turns::{after, key, records};

/// How long a call may take on a machine that has other things to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn turn(key: &SessionKey, text: &str) -> Record {
    turn_from(key, text, Parent::Previous)
}

/// A turn that has something of everything, and is JSON.
pub(crate) fn turn_from(key: &SessionKey, text: &str, parent: Parent) -> Record {
    let mut parts = parts(&format!(r#"{{"role":"user","content":"{text}"}}"#), parent);
    parts.instructions = vec![message(Author::Instruction, r#"{"role":"system","content":"Terse."}"#)];
    parts.finish_reason = Some("stop".to_owned());
    parts.model = Some("canary-model".to_owned());
    parts.into_record(key)
}

/// Appends a turn at the end, and returns it.
pub(crate) async fn say(store: &impl HistoryStore, key: &SessionKey, text: &str) -> Record {
    let turn = turn(key, text);
    add(store, key, &turn).await;
    turn
}

pub(crate) const OLD_KEY: &str = "old AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
pub(crate) const NEW_KEY: &str = "new AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

pub(crate) fn ring(keys: &[&str]) -> KeyRing {
    KeyRing::parse(&keys.join("\n")).unwrap()
}

/// A store whose insides tests may change, as a server may that fails or is not to be trusted. Clones are handles.
#[derive(Clone, Default)]
pub(crate) struct Shelf {
    logs: Arc<Mutex<HashMap<SessionKey, Log>>>,
    loads: Arc<AtomicU64>,
    moved: Arc<AtomicU64>,
    max_turns: Option<usize>,
}

#[derive(Clone)]
pub(crate) struct Log {
    pub(crate) epoch: Epoch,
    pub(crate) fresh: bool,
    pub(crate) trimmed: u64,
    pub(crate) records: Vec<Bytes>,
}

impl Shelf {
    pub(crate) fn keeping(max_turns: Option<usize>) -> Self {
        Self { max_turns, ..Self::default() }
    }

    /// Calls of load, and turns that they answered, since this was asked last.
    pub(crate) fn traffic(&self) -> (u64, u64) {
        (self.loads.swap(0, Ordering::Relaxed), self.moved.swap(0, Ordering::Relaxed))
    }

    /// Changes what is stored.
    pub(crate) fn tamper<T>(&self, key: &SessionKey, change: impl FnOnce(&mut Log) -> T) -> T {
        change(self.logs.lock().unwrap().get_mut(key).unwrap())
    }

    pub(crate) fn log(&self, key: &SessionKey) -> Log {
        self.logs.lock().unwrap()[key].clone()
    }

    pub(crate) fn expire(&self, key: &SessionKey) {
        self.logs.lock().unwrap().remove(key);
    }

    /// What a failover to a server that lags behind does.
    pub(crate) fn lose(&self, key: &SessionKey, turns: usize) {
        if let Some(log) = self.logs.lock().unwrap().get_mut(key) {
            log.records.truncate(log.records.len().saturating_sub(turns).max(1));
        }
    }
}

fn decode(key: &SessionKey, record: &Bytes) -> Result<Record, StoreError> {
    Ok(Record::decode(record.clone(), key.digest())?)
}

impl Log {
    fn cursor(&self, key: &SessionKey) -> Result<Cursor, StoreError> {
        let newest = self.records.last().map(|record| decode(key, record)).transpose()?;
        let count = self.trimmed + self.records.len() as u64;
        Ok(Cursor { epoch: self.epoch, count, newest: newest.map(|turn| turn.id()) })
    }
}

impl HistoryStore for Shelf {
    async fn load(
        &self,
        key: &SessionKey,
        options: impl Into<LoadOptions> + Send,
    ) -> Result<Loaded, StoreError> {
        let options = options.into();
        let after = options.after.as_ref();
        let logs = self.logs.lock().unwrap();
        self.loads.fetch_add(1, Ordering::Relaxed);
        let Some(log) = logs.get(key) else {
            return Ok(Loaded::unknown(after));
        };
        let turns = log.records.iter().map(|record| decode(key, record)).collect::<Result<Vec<_>, _>>()?;
        let known = after.filter(|at| at.epoch == log.epoch).and_then(|at| {
            let known = usize::try_from(at.count.checked_sub(log.trimmed)?).ok()?;
            match at.newest {
                None => (at.count == 0).then_some(0),
                Some(id) => (turns.get(known.checked_sub(1)?)?.id() == id).then_some(known),
            }
        });
        let turns = turns[known.unwrap_or(0)..].to_vec();
        self.moved.fetch_add(turns.len() as u64, Ordering::Relaxed);
        let cursor = log.cursor(key)?;
        Ok(match known {
            Some(_) => Loaded::since(cursor, turns, log.trimmed),
            None => Loaded::whole(cursor, turns),
        })
    }

    async fn append(&self, key: &SessionKey, at: &Cursor, turn: &Record) -> Result<Appended, StoreError> {
        let mut logs = self.logs.lock().unwrap();
        let new = || Log { epoch: Epoch::random(), fresh: true, trimmed: 0, records: vec![] };
        let is_there = logs.contains_key(key);
        let mut log = logs.get(key).cloned().unwrap_or_else(new);
        let ids = log.records.iter().map(|record| Ok(decode(key, record)?.id()));
        let ids: Vec<RecordId> = ids.collect::<Result<_, StoreError>>()?;
        if ids.contains(&turn.id()) {
            return Ok(Appended::AlreadyThere(log.cursor(key)?));
        }
        let accepted = !is_there || at.epoch == log.epoch || (log.fresh && at.epoch == Epoch::UNBORN);
        let orphan = turn.parent().record().is_some_and(|parent| !ids.contains(&parent));
        if !accepted || orphan {
            return Ok(Appended::Gone);
        }
        log.records.push(turn.bytes().clone());
        if let Some(max) = self.max_turns {
            let excess = log.records.len().saturating_sub(max);
            log.records.drain(..excess);
            log.trimmed += excess as u64;
        }
        let cursor = log.cursor(key)?;
        logs.insert(key.clone(), log);
        Ok(Appended::Appended { cursor, before: ids.last().copied() })
    }

    async fn delete(&self, key: &SessionKey) -> Result<(), StoreError> {
        let tombstone = Log { epoch: Epoch::random(), fresh: false, trimmed: 0, records: vec![] };
        self.logs.lock().unwrap().insert(key.clone(), tombstone);
        Ok(())
    }

    async fn sessions(&self, _: &Scope, _: &Page) -> Result<SessionPage, StoreError> {
        Ok(SessionPage::default())
    }

    async fn durability(&self) -> Result<Durability, StoreError> {
        Ok(Durability::None)
    }

    fn name(&self) -> &'static str {
        "shelf"
    }

    crate::partial_store::nothing_but_sessions!();
}
