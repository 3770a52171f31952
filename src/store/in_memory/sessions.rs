use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    convert::Infallible,
    mem,
    ops::Bound,
    sync::Arc,
};

use super::stats::InMemoryStats;
use crate::{
    history::{Log, Parent, Record, RecordId},
    session::SessionKey,
    store::{
        Appended, Cursor, Erased, Loaded, PrincipalPage, PrincipalSummary, ReadOptions, RecordPage, Records,
        Retention, Scope, SessionPage, SessionSummary,
        erasure::FURTHER,
        head::{CursorPlace, Head},
        retention::{expiry_time, system_time},
        trim::{self, KeptRecords},
    },
};

/// All sessions of a store, and the orders in which they are asked for.
#[derive(Default)]
pub(super) struct Sessions {
    by_key: HashMap<SessionKey, Session>,
    /// By [`Session::touched`], which is unique.
    by_touch: BTreeMap<u64, SessionKey>,
    /// By expiry and [`Session::touched`].
    by_expiry: BTreeSet<(i64, u64)>,
    /// [`Session::touched`] of each principal's sessions, without tombstones.
    by_owner: HashMap<Arc<Scope>, BTreeSet<u64>>,
    last_touch: u64,
    stats: InMemoryStats,
}

/// A log, or a tombstone, which is a log without turns.
pub(super) struct Session {
    head: Head,
    /// Shared with answers to loads.
    log: Arc<Log>,
    /// Ids of trimmed turns, the newest last.
    forgotten: VecDeque<RecordId>,
    /// Ids of the log and of `forgotten`; none while the log is short and looking at each turn is faster.
    ids: HashSet<RecordId>,
    /// Its principal, while it is in [`Sessions::by_owner`].
    owner: Option<Arc<Scope>>,
    /// Bytes of the records.
    record_bytes: u64,
    /// The number of records up to the newest that opens an exchange, trimmed ones included.
    opened: u64,
    model: Option<String>,
    title: Option<String>,
    /// Counts the changes of the whole store; the order of listings and evictions.
    touched: u64,
    created: i64,
    updated: i64,
    expires: i64,
    /// Bytes of memory.
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
        let expires = retention.session_expiry(now);
        let known = self.by_key.get_mut(key);
        let expired = known.as_ref().is_some_and(|session| session.expires <= now);
        if let Some(session) = known.filter(|_| !expired) {
            if session.has(turn.id()) {
                return Appended::AlreadyThere(session.head.cursor());
            }
            if !session.head.accepts(at) || !session.has_parent_of(turn) {
                return Appended::Gone;
            }
            self.stats.bytes -= session.bytes;
            let appended = session.append(turn, now, retention);
            self.stats.bytes += session.bytes;
            self.touch(key, now, expires);
            return appended;
        }
        if matches!(turn.parent(), Parent::At(_)) {
            return Appended::Gone;
        }
        if expired {
            self.remove(key);
        }
        let mut session = Session::new(Head::fresh());
        let appended = session.append(turn, now, retention);
        self.insert(key, session, now, expires);
        appended
    }

    pub(super) fn delete(&mut self, key: &SessionKey, now: i64, retention: &Retention) -> Option<(u64, u64)> {
        let tombstone = Session::new(Head::tombstone());
        let removed = self.remove(key).map(|session| session.size());
        self.insert(key, tombstone, now, retention.tombstone_expiry(now));
        removed
    }

    /// One step of the erasure of a principal's sessions, of at most this number of them.
    pub(super) fn delete_principal(
        &mut self,
        scope: &Scope,
        most: usize,
        now: i64,
        retention: &Retention,
    ) -> Erased {
        let mut erased = Erased::default();
        let found: Vec<SessionKey> = self.owned(scope).take(most).map(|(_, key)| key.clone()).collect();
        for key in found {
            if let Some((records, bytes)) = self.delete(&key, now, retention) {
                erased.add(records, bytes);
            }
        }
        erased.next = self.owned(scope).next().map(|_| FURTHER.to_owned());
        erased
    }

    /// One step of the erasure of a namespace's sessions that were appended to last before this time, after this place in
    /// the order of changes. That is the order of time, but for a clock that was set: so it ends where it finds none for a
    /// while.
    pub(super) fn expire(&mut self, namespace: &str, before: i64, after: u64, most: usize) -> Erased {
        let mut erased = Erased::default();
        let (mut old, mut last, mut found) = (false, None, Vec::new());
        let further = (Bound::Excluded(after), Bound::Unbounded);
        for (touched, key) in self.by_touch.range(further).take(LOOKED_THROUGH) {
            let Some(session) = self.by_key.get(key).filter(|session| session.updated < before) else {
                last = Some(*touched);
                continue;
            };
            old = true;
            if key.namespace() == namespace && session.head.count > 0 {
                if found.len() == most {
                    break;
                }
                found.push(key.clone());
            }
            last = Some(*touched);
        }
        for key in found {
            if let Some(session) = self.remove(&key) {
                let (records, bytes) = session.size();
                erased.add(records, bytes);
            }
        }
        erased.next = last.filter(|_| old).map(|last| last.to_string());
        erased
    }

    /// A principal's sessions, expired ones included: from the one that was changed longest ago on.
    fn owned(&self, scope: &Scope) -> impl DoubleEndedIterator<Item = (u64, &SessionKey)> {
        let touched = self.by_owner.get(scope).into_iter().flatten();
        touched.filter_map(|touched| self.by_touch.get(touched).map(|key| (*touched, key)))
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
        if let Some(owner) = session.owner(key) {
            self.by_owner.entry(owner).or_default().insert(session.touched);
        }
        self.by_key.insert(key.clone(), session);
    }

    /// Makes a session the most recently changed.
    fn touch(&mut self, key: &SessionKey, now: i64, expires: i64) {
        let Some(session) = self.by_key.get_mut(key) else { return };
        self.last_touch += 1;
        let before = mem::replace(&mut session.touched, self.last_touch);
        if let Some(key) = self.by_touch.remove(&before) {
            self.by_touch.insert(session.touched, key);
        }
        self.by_expiry.remove(&(session.expires, before));
        session.updated = now;
        session.expires = expires;
        self.by_expiry.insert((session.expires, session.touched));
        if let Some(owner) = session.owner(key) {
            let sessions = self.by_owner.entry(owner).or_default();
            sessions.insert(session.touched);
            sessions.remove(&before);
        }
    }

    fn remove(&mut self, key: &SessionKey) -> Option<Session> {
        let session = self.by_key.remove(key)?;
        self.by_touch.remove(&session.touched);
        self.by_expiry.remove(&(session.expires, session.touched));
        if let Some(owner) = &session.owner
            && let Some(sessions) = self.by_owner.get_mut(owner)
        {
            sessions.remove(&session.touched);
            if sessions.is_empty() {
                self.by_owner.remove(owner);
            }
        }
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

    /// Drops the oldest turns of the only session that is left, in whole exchanges.
    fn trim_alone(&mut self, max_bytes: u64, key: &SessionKey) {
        let mut over = self.stats.bytes - max_bytes;
        let Some(session) = self.by_key.get_mut(key) else { return };
        let before = session.bytes;
        let mut trimmed = 0;
        let most = session.before_newest_exchange();
        for turn in session.log.records() {
            if trimmed == most || (over == 0 && trim::opens_exchange(turn)) {
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

    pub(super) fn sessions(&self, scope: &Scope, before: u64, limit: usize, now: i64) -> SessionPage {
        let mut found = self.owned(scope).rev().filter_map(|(touched, key)| {
            let session = self.live(key, now).filter(|_| touched < before)?;
            Some((session, key))
        });
        let mut page = SessionPage::default();
        let mut last = 0;
        for (session, key) in found.by_ref().take(limit) {
            last = session.touched;
            page.sessions.push(session.summary(key));
        }
        page.next = found.next().map(|_| last.to_string());
        page
    }

    /// The principals whose newest session was changed before this place in the order of changes.
    pub(super) fn principals(&self, namespace: &str, before: u64, limit: usize, now: i64) -> PrincipalPage {
        let mut page = PrincipalPage::default();
        let mut last = None;
        let mut left = LOOKED_THROUGH;
        for (touched, key) in self.by_touch.range(..before).rev() {
            if left == 0 || page.principals.len() == limit {
                page.next = last.map(|last: u64| last.to_string());
                break;
            }
            (left, last) = (left - 1, Some(*touched));
            let Some(session) = self.live(key, now).filter(|_| key.namespace() == namespace) else {
                continue;
            };
            let newest = session
                .owner
                .as_ref()
                .and_then(|owner| self.owned(owner).rev().find(|(_, key)| self.live(key, now).is_some()));
            if newest.is_some_and(|(newest, _)| newest == *touched) {
                let updated = system_time(session.updated);
                page.principals.push(PrincipalSummary::new(key.principal().clone(), updated));
            }
        }
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
            owner: None,
            record_bytes: 0,
            opened: 0,
            model: None,
            title: None,
            touched: 0,
            created: 0,
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
            CursorPlace::Unknown => None,
            CursorPlace::Start => Some(0),
            CursorPlace::After(count, id) => {
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

    pub(super) fn read(&self, options: &ReadOptions) -> RecordPage {
        let first = options.from.clamp(self.head.trimmed, self.head.count);
        let (mut records, mut bytes) = (Vec::new(), 0);
        for record in &self.log.records()[(first - self.head.trimmed) as usize..] {
            let more = record.bytes().len() as u64;
            if !options.takes(records.len(), bytes, more) {
                break;
            }
            bytes += more;
            records.push(record.clone());
        }
        RecordPage::new(self.head.cursor(), first, records)
    }

    /// How many records there are, and how many bytes they have.
    fn size(&self) -> (u64, u64) {
        (self.log.records().len() as u64, self.record_bytes)
    }

    fn summary(&self, key: &SessionKey) -> SessionSummary {
        let (turns, bytes) = self.size();
        SessionSummary {
            id: key.id().clone(),
            turns,
            bytes,
            created_at: system_time(self.created),
            updated_at: system_time(self.updated),
            expires_at: expiry_time(self.expires),
            model: self.model.clone(),
            title: self.title.clone(),
        }
    }

    fn before_newest_exchange(&self) -> u64 {
        self.opened.saturating_sub(self.head.trimmed + 1)
    }

    /// How many of the oldest records are past the bounds.
    fn excess(&self, retention: &Retention) -> u64 {
        let (records, bytes) = self.size();
        let kept = KeptRecords { records, bytes, before_newest_exchange: self.before_newest_exchange() };
        let turns = self.log.records();
        let look = |at: u64| {
            let record = turns.get(at as usize);
            let found = |record: &Record| (record.bytes().len() as u64, trim::opens_exchange(record));
            Ok::<_, Infallible>(record.map_or((0, true), found))
        };
        let Ok(excess) = kept.excess(retention, look);
        excess.records
    }

    /// Its principal, unless it is a tombstone.
    fn owner(&mut self, key: &SessionKey) -> Option<Arc<Scope>> {
        if self.head.count == 0 {
            return None;
        }
        Some(Arc::clone(self.owner.get_or_insert_with(|| Arc::new(Scope::of(key)))))
    }

    fn append(&mut self, turn: &Record, now: i64, retention: &Retention) -> Appended {
        let before = self.head.newest;
        if before.is_none() {
            self.created = now;
        }
        self.push(turn.clone());
        self.trim(self.excess(retention));
        Appended::Appended { cursor: self.head.cursor(), before }
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
        self.record_bytes += turn.bytes().len() as u64;
        if self.opened == 0 || trim::opens_exchange(&turn) {
            self.opened = self.head.count;
        }
        for (name, named) in [(&mut self.model, trim::model(&turn)), (&mut self.title, trim::title(&turn))] {
            if named.is_some() && name.as_deref() != named {
                *name = named.map(str::to_owned);
            }
        }
        if !self.ids.is_empty() {
            self.ids.insert(turn.id());
        }
        Arc::make_mut(&mut self.log).push(turn);
        if self.log.records().len() > LOOKED_AT {
            self.index();
        }
    }

    /// Puts the ids in a table, if they are in none.
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
            self.record_bytes -= turn.bytes().len() as u64;
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
/// Sessions that one step of a listing of principals or of an expiry looks at.
const LOOKED_THROUGH: usize = 1024;
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
