//! Loads and appends of the store in memory, by itself and behind the cache of logs. (The other stores need a file or
//! a server: `cost` counts what they allocate, `store` and `sqlite_append` take the time.)

use std::{future::Future, hint::black_box};

use tokio::runtime::Runtime;
use tower_session_memory::store::{Cached, Cursor, Epoch, HistoryStore, InMemoryStore};

use super::{
    fixtures::{key, parts, said, turns},
    operation::Operation,
};

pub(super) fn all() -> Vec<Operation> {
    let mut all = Vec::new();
    for length in [20, 200, 2000] {
        all.push(load(format!("in memory: load, {length} turns"), length, |store| store));
        all.push(load(format!("in memory: load behind the cache, {length} turns"), length, Cached::new));
    }
    // The session grows by as much again while it is counted, so short ones say nothing.
    all.extend([200, 2000].map(append));
    all
}

fn load<S: HistoryStore + 'static>(name: String, length: usize, around: fn(InMemoryStore) -> S) -> Operation {
    Operation::new(name, move || {
        let (runtime, key) = (runtime(), key());
        let store = around(runtime.block_on(seeded(length)));
        Box::new(move || {
            black_box(runtime.block_on(store.load(&key, None)).unwrap());
        })
    })
}

fn append(length: usize) -> Operation {
    Operation::new(format!("in memory: append, {length} turns"), move || {
        let (runtime, key, said) = (runtime(), key(), said());
        let store = runtime.block_on(seeded(length));
        let at = runtime.block_on(store.load(&key, None)).unwrap().cursor;
        let mut turns: Vec<_> = (0..200).map(|_| parts(&said).into_record(&key)).collect();
        Box::new(move || {
            let turn = turns.pop().unwrap();
            black_box(runtime.block_on(store.append(&key, &at, &turn)).unwrap());
        })
    })
}

/// A store with one session of `length` turns.
fn seeded(length: usize) -> impl Future<Output = InMemoryStore> {
    let store = InMemoryStore::new();
    async move {
        let mut at = Cursor::start_of(Epoch::UNBORN);
        for turn in turns(length) {
            store.append(&key(), &at, &turn).await.unwrap();
            at = store.load(&key(), Some(&at)).await.unwrap().cursor;
        }
        store
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}
