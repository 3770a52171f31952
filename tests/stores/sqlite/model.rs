//! The in-memory store as a model of the SQLite store: whatever is done to both, they answer alike.

use std::{collections::HashMap, num::NonZeroUsize, time::Duration};

use proptest::{collection::vec, prelude::*, sample::Index};
use tower_session_memory::{
    history::{Parent, Record, RecordId},
    session::{Principal, SessionKey},
    store::{Appended, Cursor, Epoch, HistoryStore, InMemoryStore, Page, Retention, Scope, SqliteStore},
    testing::ManualClock,
};

use crate::sqlite::support::{File, after, key, turn_from};

#[derive(Debug, Clone)]
enum Step {
    Load {
        session: usize,
        after: Option<Index>,
    },
    /// At a cursor that some load or append returned, with a new turn or one that was sent before.
    Append {
        session: usize,
        at: Index,
        parent: Option<Option<Index>>,
        again: Option<Index>,
    },
    Delete {
        session: usize,
    },
    Pass {
        seconds: u64,
    },
    List {
        limit: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let session = 0..2_usize;
    let index = any::<Index>;
    prop_oneof![
        3 => (session.clone(), proptest::option::of(index()))
            .prop_map(|(session, after)| Step::Load { session, after }),
        8 => (
            session.clone(),
            index(),
            proptest::option::weighted(0.3, proptest::option::of(index())),
            proptest::option::weighted(0.2, index()),
        )
            .prop_map(|(session, at, parent, again)| Step::Append { session, at, parent, again }),
        1 => session.prop_map(|session| Step::Delete { session }),
        1 => (0..70_u64).prop_map(|seconds| Step::Pass { seconds }),
        1 => (1..3_usize).prop_map(|limit| Step::List { limit }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_two_stores_answer_alike_whatever_is_done_to_them(
        steps in vec(step(), 1..80),
        max_turns in proptest::option::of(1..5_usize),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut both = Both::new(max_turns.and_then(NonZeroUsize::new)).await;
            for step in &steps {
                both.take(step).await;
            }
        });
    }
}

struct Both {
    file: File,
    clock: ManualClock,
    model: InMemoryStore,
    sqlite: SqliteStore,
    /// Of each session, the cursors that the two stores returned for the same calls.
    cursors: [Vec<(Cursor, Cursor)>; 2],
    turns: [Vec<Record>; 2],
    /// The epochs of the model, and what they are called in SQLite.
    epochs: HashMap<Epoch, Epoch>,
}

impl Both {
    async fn new(max_turns: Option<NonZeroUsize>) -> Self {
        let (file, clock) = (File::new(), ManualClock::default());
        let now = || {
            let clock = clock.clone();
            move || clock.now()
        };
        let (ttl, tombstone_ttl) = (Duration::from_secs(60), Duration::from_secs(30));
        let retention =
            Retention::new().with_ttl(ttl).with_tombstone_ttl(tombstone_ttl).with_max_turns(max_turns);
        let model = InMemoryStore::new().with_clock(now()).with_retention(retention);
        let sqlite = file.builder().with_clock(now()).with_retention(retention);
        let start = Cursor::start_of(Epoch::UNBORN);
        Self {
            sqlite: sqlite.open().await.unwrap(),
            file,
            clock,
            model,
            cursors: [vec![(start, start)], vec![(start, start)]],
            turns: [const { Vec::new() }; 2],
            epochs: HashMap::from([(Epoch::UNBORN, Epoch::UNBORN)]),
        }
    }

    async fn take(&mut self, step: &Step) {
        match step {
            Step::Load { session, after } => self.load(*session, after.as_ref()).await,
            Step::Append { session, at, parent, again } => {
                let turn = self.turn(*session, parent.as_ref(), again.as_ref());
                self.append(*session, at, turn).await;
            }
            Step::Delete { session } => {
                self.model.delete(&session_key(*session)).await.unwrap();
                self.sqlite.delete(&session_key(*session)).await.unwrap();
            }
            Step::Pass { seconds } => self.clock.advance(Duration::from_secs(*seconds)),
            Step::List { limit } => self.list(*limit).await,
        }
    }

    async fn load(&mut self, session: usize, after: Option<&Index>) {
        let after = after.map(|index| *index.get(&self.cursors[session]));
        let key = session_key(session);
        let model = self.model.load(&key, after.map(|after| after.0).as_ref()).await.unwrap();
        let sqlite = self.sqlite.load(&key, after.map(|after| after.1).as_ref()).await.unwrap();
        assert_eq!(sqlite.from_start, model.from_start);
        assert_eq!(ids(&sqlite.records), ids(&model.records));
        self.same(session, model.cursor, sqlite.cursor);
    }

    async fn append(&mut self, session: usize, at: &Index, turn: Record) {
        let at = *at.get(&self.cursors[session]);
        let key = session_key(session);
        let model = self.model.append(&key, &at.0, &turn).await.unwrap();
        let sqlite = self.sqlite.append(&key, &at.1, &turn).await.unwrap();
        match (model, sqlite) {
            (
                Appended::Appended { cursor: model, before },
                Appended::Appended { cursor: sqlite, before: same_before },
            ) => {
                assert_eq!(same_before, before);
                self.same(session, model, sqlite);
            }
            (Appended::AlreadyThere(model), Appended::AlreadyThere(sqlite)) => {
                self.same(session, model, sqlite);
            }
            (model, sqlite) => assert_eq!(sqlite, model),
        }
        self.turns[session].push(turn);
    }

    fn turn(&self, session: usize, parent: Option<&Option<Index>>, again: Option<&Index>) -> Record {
        let turns = &self.turns[session];
        if let Some(again) = again.filter(|_| !turns.is_empty()) {
            return again.get(turns).clone();
        }
        let parent = match parent {
            None => Parent::Previous,
            Some(Some(parent)) if !turns.is_empty() => after(parent.get(turns)),
            Some(_) => Parent::Root,
        };
        turn_from(&session_key(session), "hi", parent)
    }

    async fn list(&self, limit: usize) {
        let key = key("any");
        let scope = Scope { namespace: key.namespace().to_owned(), principal: key.principal().clone() };
        let mut pages = [None, None];
        loop {
            let [model, sqlite] = pages.map(|after| Page::new(limit).with_after(after));
            let model = self.model.sessions(&scope, &model).await.unwrap();
            let sqlite = self.sqlite.sessions(&scope, &sqlite).await.unwrap();
            assert_eq!(sqlite.sessions, model.sessions);
            assert_eq!(sqlite.next.is_none(), model.next.is_none());
            if model.next.is_none() {
                return;
            }
            pages = [model.next, sqlite.next];
        }
    }

    /// Fails unless the cursors say the same, each in the epochs of its store.
    fn same(&mut self, session: usize, model: Cursor, sqlite: Cursor) {
        assert_eq!((sqlite.count, sqlite.newest), (model.count, model.newest));
        let epoch = *self.epochs.entry(model.epoch).or_insert(sqlite.epoch);
        assert_eq!(sqlite.epoch, epoch, "the stores disagree on whether this is the same log as before");
        self.cursors[session].push((model, sqlite));
    }
}

impl Drop for Both {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let check: String =
                self.file.sqlite().query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
            assert_eq!(check, "ok");
        }
    }
}

fn session_key(session: usize) -> SessionKey {
    let id = format!("session-{session}").parse().unwrap();
    SessionKey::new("test", Principal::anonymous(), id)
}

fn ids(turns: &[Record]) -> Vec<RecordId> {
    turns.iter().map(Record::id).collect()
}
