use lru::LruCache;

use super::{log::CachedLog, stats::CacheStats};
use crate::session::SessionKey;

/// Logs by key, in the order in which they were last used. The bound holds after every call.
pub(super) struct Lru {
    max_bytes: u64,
    logs: LruCache<SessionKey, CachedLog>,
    /// Counts removals. A load that began before one may bring back what was removed.
    generation: u64,
    stats: CacheStats,
}

impl Lru {
    pub(super) fn new(max_bytes: u64) -> Self {
        Self { max_bytes, logs: LruCache::unbounded(), generation: 0, stats: CacheStats::default() }
    }

    pub(super) fn stats(&self) -> CacheStats {
        CacheStats { sessions: self.logs.len() as u64, ..self.stats }
    }

    /// The log, if it is kept, and the generation for [`put`](Self::put).
    pub(super) fn get(&self, key: &SessionKey) -> (Option<CachedLog>, u64) {
        (self.logs.peek(key).cloned(), self.generation)
    }

    /// Gives up a log that is about to be put back longer, so that it is not shared meanwhile. What another load
    /// has put in its place stays.
    pub(super) fn release(&mut self, key: &SessionKey, log: &CachedLog, generation: u64) {
        if generation == self.generation && self.logs.peek(key).is_some_and(|kept| kept.is(log)) {
            self.take(key);
        }
    }

    /// Keeps what a load found, as the most recently used.
    pub(super) fn put(&mut self, key: &SessionKey, log: &CachedLog, generation: u64, hit: bool) {
        match hit {
            true => self.stats.hits += 1,
            false => self.stats.misses += 1,
        }
        if generation != self.generation {
            return;
        }
        let kept = self.take(key).filter(|kept| is_ahead(kept, log));
        self.insert(key, kept.unwrap_or_else(|| log.clone()));
    }

    /// The log, if it is kept.
    pub(super) fn peek(&self, key: &SessionKey) -> Option<&CachedLog> {
        self.logs.peek(key)
    }

    /// Changes a log that is kept, which uses it.
    pub(super) fn change(&mut self, key: &SessionKey, change: impl FnOnce(&mut CachedLog)) {
        if let Some(mut log) = self.take(key) {
            change(&mut log);
            self.insert(key, log);
        }
    }

    /// Keeps a log that is not kept, as the most recently used.
    fn insert(&mut self, key: &SessionKey, log: CachedLog) {
        let weight = weight(key, &log);
        if log.is_empty() || weight > self.max_bytes {
            return;
        }
        self.stats.bytes += weight;
        self.logs.put(key.clone(), log);
        while self.stats.bytes > self.max_bytes
            && let Some((oldest, log)) = self.logs.pop_lru()
        {
            self.stats.bytes -= self::weight(&oldest, &log);
            self.stats.evicted += 1;
        }
    }

    /// Forgets a log, also for the loads that are under way.
    pub(super) fn remove(&mut self, key: &SessionKey) {
        self.generation += 1;
        self.take(key);
    }

    /// Forgets all logs of a kind, also for the loads that are under way.
    pub(super) fn remove_all(&mut self, is_one: impl Fn(&SessionKey, &CachedLog) -> bool) {
        self.generation += 1;
        let found: Vec<SessionKey> =
            self.logs.iter().filter(|(key, log)| is_one(key, log)).map(|(key, _)| key.clone()).collect();
        for key in found {
            self.take(&key);
        }
    }

    fn take(&mut self, key: &SessionKey) -> Option<CachedLog> {
        let log = self.logs.pop(key)?;
        self.stats.bytes -= weight(key, &log);
        Some(log)
    }
}

/// Whether a load that overtook this one found more of the same log.
fn is_ahead(kept: &CachedLog, log: &CachedLog) -> bool {
    kept.cursor().epoch == log.cursor().epoch && kept.cursor().count > log.cursor().count
}

fn weight(key: &SessionKey, log: &CachedLog) -> u64 {
    let key = key.namespace().len() + key.principal().as_str().len() + key.id().as_str().len();
    log.weight() + key as u64 + TABLES
}

/// What the table takes for one log, rounded up.
const TABLES: u64 = 512;
