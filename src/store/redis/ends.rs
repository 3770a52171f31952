//! What this process knows of logs: at which byte they ended when it read or wrote them last, and the turns that it
//! added to them itself.
//!
//! A cursor tells of a place by its turn; to find that turn a server must walk the log. Who knows the byte asks for
//! what stands there, and checks that it is what the cursor says. What is kept here is never trusted: a place that is
//! forgotten or wrong costs a script, and no more.
//!
//! A turn that was added right behind a cursor's need not be read back by who asks what came after that cursor. The
//! script that added it compared all of the header, and so it knows what stands before it; an answer that a server
//! gave to any other append does not tell, for that server may have lost the turn before.

use std::{
    collections::HashMap,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    history::{Turn, TurnId},
    store::Cursor,
};

/// Where a log's newest turn stands. All in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    /// The length of the log's header.
    pub(super) head: usize,
    /// Where the newest turn's frame begins.
    pub(super) last: usize,
    /// Where it ends.
    pub(super) end: usize,
    /// What else the header says; nothing where this version would not have written all of it.
    pub(super) rest: Option<Rest>,
}

/// What a log's header says beside its cursor and where the log ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rest {
    /// Whether no deletion stands before the log's first turn.
    pub(super) fresh: bool,
    /// How many of its turns are kept no more.
    pub(super) trimmed: u64,
    /// When the newest was appended, in microseconds since 1970.
    pub(super) at: u64,
    /// How many bytes of ids of trimmed turns follow the header.
    pub(super) ids: usize,
    /// Where the oldest turn that is kept begins.
    pub(super) first: usize,
}

/// A turn that was added, and what the log was then.
#[derive(Clone)]
pub(super) struct Added {
    pub(super) turn: Turn,
    pub(super) cursor: Cursor,
    pub(super) end: End,
}

/// So many logs are known at least, and twice as many at most: less than 6 MiB.
const LOGS: usize = 16 * 1024;

/// So many bytes of turns that were added are kept at least, if there are, and twice as many at most.
const ADDED: usize = 8 << 20;

/// What a turn that was added takes besides its record, about. In bytes.
const EACH: usize = 512;

/// What is known of logs, by turns; what was not asked for longest goes first.
pub(super) struct Ends(Mutex<Known>);

struct Known {
    /// By their newest turns.
    ends: Generations<End>,
    /// By the turns before them.
    added: Generations<Added>,
}

impl Default for Ends {
    fn default() -> Self {
        Self(Mutex::new(Known { ends: Generations::new(LOGS), added: Generations::new(ADDED) }))
    }
}

impl Ends {
    /// Where the log ends whose newest turn this was.
    pub(super) fn of(&self, newest: TurnId) -> Option<End> {
        self.known().ends.get(newest)
    }

    /// Keeps where a log ends, and forgets where it ended before.
    pub(super) fn put(&self, newest: TurnId, end: End, before: Option<TurnId>) {
        if let Some(before) = before {
            self.forget(before);
        }
        self.known().ends.put(newest, end, 1);
    }

    /// Forgets what is known by this turn.
    pub(super) fn forget(&self, turn: TurnId) {
        let mut known = self.known();
        known.ends.remove(turn);
        known.added.remove(turn);
    }

    /// The turn that was added right behind this one.
    pub(super) fn added_behind(&self, before: TurnId) -> Option<Added> {
        self.known().added.get(before)
    }

    pub(super) fn add_behind(&self, before: TurnId, added: Added) {
        let bytes = EACH + added.turn.record().len();
        if bytes <= ADDED / 8 {
            self.known().added.put(before, added, bytes);
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Values of which the young ones are kept within a limit; when they reach it, they become the old ones.
struct Generations<V> {
    young: HashMap<TurnId, (V, usize)>,
    old: HashMap<TurnId, (V, usize)>,
    weight: usize,
    most: usize,
}

impl<V: Clone> Generations<V> {
    fn new(most: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), weight: 0, most }
    }

    fn get(&mut self, turn: TurnId) -> Option<V> {
        if let Some((value, _)) = self.young.get(&turn) {
            return Some(value.clone());
        }
        let (value, weight) = self.old.remove(&turn)?;
        self.put(turn, value.clone(), weight);
        Some(value)
    }

    fn remove(&mut self, turn: TurnId) {
        if let Some((_, weight)) = self.young.remove(&turn) {
            self.weight -= weight;
        }
        self.old.remove(&turn);
    }

    fn put(&mut self, turn: TurnId, value: V, weight: usize) {
        if self.weight + weight > self.most {
            self.old = mem::take(&mut self.young);
            self.weight = 0;
        }
        if let Some((_, before)) = self.young.insert(turn, (value, weight)) {
            self.weight -= before;
        }
        self.weight += weight;
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        history::{About, Message, Parent, Role, TurnParts, TurnState},
        session::{Principal, SessionKey},
        store::Epoch,
    };

    fn id(number: usize) -> TurnId {
        TurnId::from_bytes((number as u128).to_be_bytes())
    }

    fn end(number: usize) -> End {
        End { head: 1, last: number, end: number + 1, rest: None }
    }

    #[test]
    fn what_is_asked_for_stays_and_the_rest_is_bounded() {
        let ends = Ends::default();
        for number in 0..10 * LOGS {
            ends.put(id(number), end(number), None);
            assert_eq!(ends.of(id(0)), Some(end(0)), "asked for all the while");
        }
        assert_eq!(ends.of(id(1)), None, "forgotten");
        assert_eq!(ends.of(id(10 * LOGS - 1)), Some(end(10 * LOGS - 1)));
        let kept = &ends.0.lock().unwrap().ends;
        assert!(kept.young.len() + kept.old.len() <= 2 * LOGS);
    }

    #[test]
    fn what_is_forgotten_does_not_come_back_as_it_was_before() {
        let ends = Ends::default();
        ends.put(id(1), end(1), None);
        (2..LOGS + 2).for_each(|number| ends.put(id(number), end(number), None));
        ends.put(id(1), end(7), None);
        ends.forget(id(1));
        assert_eq!(ends.of(id(1)), None);
    }

    #[test]
    fn a_log_that_grew_is_known_by_its_newest_turn_alone() {
        let ends = Ends::default();
        ends.put(id(1), end(1), None);
        ends.put(id(2), end(2), Some(id(1)));
        assert_eq!((ends.of(id(1)), ends.of(id(2))), (None, Some(end(2))));
    }

    #[test]
    fn turns_that_were_added_are_bounded_by_their_bytes() {
        let ends = Ends::default();
        let key = SessionKey::new("", Principal::anonymous(), "a".parse().unwrap());
        let turn = |bytes: usize| {
            let message = |text: String| Message::new(Bytes::from(text), About::new(Role::User));
            let parts = TurnParts {
                id: TurnId::new(),
                parent: Parent::Previous,
                at: std::time::SystemTime::UNIX_EPOCH,
                instructions: Vec::new(),
                sent: vec![message("x".repeat(bytes))],
                reply: message("y".to_owned()),
                state: TurnState::Complete,
                finish_reason: None,
                model: None,
                usage: None,
            };
            let cursor = Cursor::start_of(Epoch::UNBORN);
            Added { turn: parts.into_turn(&key), cursor, end: end(0) }
        };
        for number in 0..1_000 {
            ends.add_behind(id(number), turn(100_000));
            assert!(ends.added_behind(id(number)).is_some());
        }
        let bytes = |kept: &HashMap<TurnId, (Added, usize)>| {
            kept.values().map(|(added, _)| added.turn.record().len()).sum::<usize>()
        };
        let known = ends.known();
        let kept = bytes(&known.added.young) + bytes(&known.added.old);
        assert!((ADDED / 2..=2 * ADDED).contains(&kept), "{kept} bytes");
        drop(known);
        ends.add_behind(id(0), turn(ADDED));
        assert!(ends.added_behind(id(0)).is_none(), "one turn does not drive all the others out");
        ends.add_behind(id(1), turn(100));
        ends.put(id(2), end(2), Some(id(1)));
        assert!(ends.added_behind(id(1)).is_none(), "it was read");
    }
}
