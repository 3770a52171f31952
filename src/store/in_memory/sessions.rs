use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use super::InMemoryStats;
use crate::{
    history::{Log, Parent, Record, RecordId},
    session::SessionKey,
    store::{
        Appended, Cursor, Loaded, Records, Scope, SessionPage, SessionSummary,
        head::{Head, Place},
        retention::{Retention, system_time},
    },
};

/// All sessions of a store, and what it takes to find the oldest of them.
#[derive(Default)]
pub(super) struct Sessions {
    by_key: HashMap<SessionKey, Session>,
    /// By [`Session::touched`], which is unique.
    by_touch: BTreeMap<u64, SessionKey>,
    /// By expiry and [`Session::touched`].
    by_expiry: BTreeSet<(i64, u64)>,
    last_touch: u64,
    stats: InMemoryStats,
}

/// A log, or a tombstone, which is a log without turns.
pub(super) struct Session {
    head: Head,
    /// Shared with the loads that are looked at.
    log: Arc<Log>,
    /// Ids of trimmed turns, the newest last.
    forgotten: VecDeque<RecordId>,
    /// Ids of the log and of `forgotten`; none until there are so many that looking at each would take longer.
    ids: HashSet<RecordId>,
    /// Counts the changes of the whole store; the order of listings and evictions.
    touched: u64,
    updated: i64,
    expires: i64,
    bytes: u64,
}

impl Sessions {
    pub(super) fn stats(&self) -> InMemoryStats {
        InMemoryStats { sessions: self.by_key.len() as u64, ..self.stats }
    }

    pub(super) fn live(&self, key: &SessionKey, now: i64) -> Option<&Session> {
        self.by_key.get(key).filter(|session| session.expires > now)
    }

    pub(super) fn append(
        &mut self,
        key: &SessionKey,
        at: &Cursor,
        turn: &Record,
        now: i64,
        retention: &Retention,
    ) -> Appended {
        let known = self.by_key.get(key);
        let live = known.filter(|session| session.expires > now);
        if let Some(session) = live {
            if session.has(turn.id()) {
                return Appended::AlreadyThere(session.head.cursor());
            }
            if !session.head.accepts(at) || !session.has_parent_of(turn) {
                return Appended::Gone;
            }
        } else if matches!(turn.parent(), Parent::At(_)) {
            return Appended::Gone;
        }
        let (known, live) = (known.is_some(), live.is_some());
        let removed = if known { self.remove(key) } else { None };
        let mut session = removed.filter(|_| live).unwrap_or_else(|| Session::new(Head::fresh()));
        let before = session.head.newest;
        session.push(turn.clone());
        session.trim(session.head.excess(retention.max_turns));
        let cursor = session.head.cursor();
        self.insert(key, session, now, retention.session_expiry(now));
        Appended::Appended { cursor, before }
    }

    pub(super) fn delete(&mut self, key: &SessionKey, now: i64, retention: &Retention) {
        let tombstone = Session::new(Head::tombstone());
        self.remove(key);
        self.insert(key, tombstone, now, retention.tombstone_expiry(now));
    }

    /// Puts a session in as the most recently changed.
    fn insert(&mut self, key: &SessionKey, mut session: Session, now: i64, expires: i64) {
        self.last_touch += 1;
        session.touched = self.last_touch;
        session.updated = now;
        session.expires = expires;
        self.stats.bytes += session.bytes + key_weight(key);
        self.by_touch.insert(session.touched, key.clone());
        self.by_expiry.insert((session.expires, session.touched));
        self.by_key.insert(key.clone(), session);
    }

    fn remove(&mut self, key: &SessionKey) -> Option<Session> {
        let session = self.by_key.remove(key)?;
        self.by_touch.remove(&session.touched);
        self.by_expiry.remove(&(session.expires, session.touched));
        self.stats.bytes -= session.bytes + key_weight(key);
        Some(session)
    }

    pub(super) fn expire_at(&mut self, key: &SessionKey, expires: i64) {
        if let Some(session) = self.by_key.get_mut(key) {
            self.by_expiry.remove(&(session.expires, session.touched));
            session.expires = expires;
            self.by_expiry.insert((session.expires, session.touched));
        }
    }

    /// Goes back below the bound, and removes some of what expired anyway. `keep` is the session that was
    /// just changed.
    pub(super) fn shrink(&mut self, max_bytes: u64, keep: &SessionKey, now: i64) {
        let mut swept = 0;
        while let Some(&(expires, touched)) = self.by_expiry.first()
            && expires <= now
            && (swept < SWEPT_PER_CHANGE || self.stats.bytes > max_bytes)
        {
            let key = self.by_touch.get(&touched).cloned();
            key.and_then(|key| self.remove(&key));
            swept += 1;
        }
        let evicted = self.stats.evicted_sessions;
        while self.stats.bytes > max_bytes
            && let Some(key) = self.by_touch.values().next().filter(|key| *key != keep).cloned()
        {
            self.remove(&key);
            self.stats.evicted_sessions += 1;
        }
        let evicted = self.stats.evicted_sessions - evicted;
        if evicted > 0 {
            tracing::warn!(evicted, max_bytes, "the in-memory session store is full; sessions were dropped");
        }
        if self.stats.bytes > max_bytes {
            self.trim_alone(max_bytes, keep);
        }
    }

    /// Drops the oldest turns of the only session that is left.
    fn trim_alone(&mut self, max_bytes: u64, key: &SessionKey) {
        let mut over = self.stats.bytes - max_bytes;
        let Some(session) = self.by_key.get_mut(key) else { return };
        let before = session.bytes;
        let mut trimmed = 0;
        for turn in session.log.records().iter().rev().skip(1).rev() {
            if over == 0 {
                break;
            }
            over = over.saturating_sub(weight(turn) - FORGOTTEN_WEIGHT);
            trimmed += 1;
        }
        session.trim(trimmed);
        self.stats.bytes -= before - session.bytes;
        self.stats.evicted_turns += trimmed;
        tracing::warn!(
            trimmed,
            max_bytes,
            "one session fills the in-memory session store; its oldest turns were dropped"
        );
    }

    pub(super) fn page(&self, scope: &Scope, before: u64, limit: usize, now: i64) -> SessionPage {
        let mut found = self.by_touch.range(..before).rev().filter_map(|(_, key)| {
            let listed = key.principal() == &scope.principal && key.namespace() == scope.namespace;
            let session = self.live(key, now).filter(|session| listed && session.head.count > 0)?;
            Some((session, key))
        });
        let mut page = SessionPage::default();
        let mut last = 0;
        for (session, key) in found.by_ref().take(limit) {
            last = session.touched;
            page.sessions.push(SessionSummary {
                id: key.id().clone(),
                turns: session.log.records().len() as u64,
                updated_at: system_time(session.updated),
            });
        }
        page.next = found.next().map(|_| last.to_string());
        page
    }
}

impl Session {
    fn new(head: Head) -> Self {
        Self {
            head,
            log: Arc::default(),
            forgotten: VecDeque::new(),
            ids: HashSet::new(),
            touched: 0,
            updated: 0,
            expires: 0,
            bytes: 0,
        }
    }

    pub(super) fn expires(&self) -> i64 {
        self.expires
    }

    pub(super) fn load(&self, after: Option<&Cursor>) -> Loaded {
        let skip = match self.head.place(after) {
            Place::Unknown => None,
            Place::Start => Some(0),
            Place::After(count, id) => {
                let skip = (count - self.head.trimmed) as usize;
                self.log.records().get(skip - 1).filter(|turn| turn.id() == id).map(|_| skip)
            }
        };
        Loaded {
            cursor: self.head.cursor(),
            records: Records::shared(Arc::clone(&self.log), skip.unwrap_or(0)),
            from_start: skip.is_none(),
            trimmed: self.head.trimmed,
        }
    }

    fn has(&self, id: RecordId) -> bool {
        match self.ids.is_empty() {
            true => self.log.records().iter().any(|turn| turn.id() == id),
            false => self.ids.contains(&id),
        }
    }

    fn has_parent_of(&self, turn: &Record) -> bool {
        match turn.parent() {
            Parent::Previous | Parent::Root => true,
            Parent::At(place) => self.log.records().iter().rev().any(|turn| turn.id() == place.turn),
        }
    }

    fn push(&mut self, turn: Record) {
        self.head = self.head.with(turn.id());
        self.bytes += weight(&turn);
        if !self.ids.is_empty() {
            self.ids.insert(turn.id());
        }
        Arc::make_mut(&mut self.log).push(turn);
        if self.log.records().len() > LOOKED_AT {
            self.index();
        }
    }

    /// Sees to it that the ids are in a table.
    fn index(&mut self) {
        if self.ids.is_empty() {
            self.ids.extend(self.log.records().iter().map(Record::id));
        }
    }

    fn trim(&mut self, excess: u64) {
        if excess == 0 {
            return;
        }
        self.index();
        let log = Arc::make_mut(&mut self.log);
        let excess = usize::try_from(excess).unwrap_or(usize::MAX).min(log.records().len());
        for turn in &log.records()[..excess] {
            self.head.trimmed += 1;
            self.bytes -= weight(turn) - FORGOTTEN_WEIGHT;
            self.forgotten.push_back(turn.id());
        }
        log.trim(excess);
        while self.forgotten.len() > Retention::REMEMBERED
            && let Some(id) = self.forgotten.pop_front()
        {
            self.ids.remove(&id);
            self.bytes -= FORGOTTEN_WEIGHT;
        }
    }
}

const SWEPT_PER_CHANGE: usize = 16;
/// Turns whose ids are looked at one by one.
const LOOKED_AT: usize = 16;
const OVERHEAD: u64 = 512;
const FORGOTTEN_WEIGHT: u64 = 64;

/// What a turn takes, its part of the log included.
pub(super) fn weight(turn: &Record) -> u64 {
    (turn.bytes().len() + Log::weight(turn)) as u64 + OVERHEAD
}

pub(super) fn key_weight(key: &SessionKey) -> u64 {
    (key.namespace().len() + key.principal().as_str().len() + key.id().as_str().len()) as u64 + OVERHEAD
}
