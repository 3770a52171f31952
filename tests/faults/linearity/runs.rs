//! Three replicas of the real binary on each store that replicas can share.
//!
//! `SESSION_MEMORY_HISTORIES` sets the number of histories a store, each of 8 clients with 200 operations; by
//! default it is one history of 8 clients with 25. `SESSION_MEMORY_SEED` sets the first seed; 1 by default.

use std::time::Instant;

use crate::linearity::{
    backend::Backend,
    checker,
    history::{Kind, Outcome},
    one_run::{Run, run},
    replica::Build,
    world::Plan,
};

pub const CLIENTS: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_on_redis_behave_like_one() {
    behaves(&Backend::redis().await, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_on_a_redis_that_loses_its_newest_turns_never_show_what_it_lost() {
    behaves(&Backend::redis().await, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_on_a_cluster_behave_like_one() {
    behaves(&Backend::cluster().await, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_on_postgres_behave_like_one() {
    behaves(&Backend::postgres().await, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_on_one_sqlite_file_behave_like_one() {
    behaves(&Backend::sqlite().await, 0).await;
}

async fn behaves(backend: &Backend, rewinds: usize) {
    let (histories, ops) = size();
    for seed in first_seed()..first_seed() + histories {
        let plan = Plan { seed, tag: "", clients: CLIENTS, ops, rewinds };
        let started = Instant::now();
        let run = run(&plan, backend, &Build::Binary).await;
        let found = checker::check(&run.history);
        println!(
            "{}, seed {seed}: {}; {} violations; {:.1?}",
            backend.name,
            figures(&run),
            found.len(),
            started.elapsed()
        );
        let first: Vec<_> = found.iter().take(10).map(ToString::to_string).collect();
        assert!(
            found.is_empty(),
            "{}, {plan:?}: {} violations:\n{}",
            backend.name,
            found.len(),
            first.join("\n")
        );
    }
    println!("{}: faults on the way to it: {}", backend.name, backend.counts());
}

/// What happened, to be printed.
pub fn figures(run: &Run) -> String {
    let history = &run.history;
    let count = |outcome| history.ops.iter().filter(|op| op.outcome == outcome).count();
    let of = |kind| history.ops.iter().filter(|op| op.kind == kind).count();
    let stored: usize = history.logs.values().map(Vec::len).sum();
    assert!(count(Outcome::Ended) * 4 > history.ops.len(), "most operations failed: there was no load");
    format!(
        "{} operations ({} deletions) in {} sessions, {} ended, {} errors, {} left; {} requests seen, {stored} turns \
         stored; {} faults, {} of them kills of a replica, {} rewinds",
        history.ops.len(),
        of(Kind::Delete),
        history.logs.len(),
        count(Outcome::Ended),
        count(Outcome::Error),
        count(Outcome::Left),
        history.shown.len(),
        run.faults,
        run.kills,
        history.rewinds.len(),
    )
}

/// How many histories, and how many operations of each client.
pub fn size() -> (u64, usize) {
    match std::env::var("SESSION_MEMORY_HISTORIES") {
        Ok(histories) => (histories.parse().expect("SESSION_MEMORY_HISTORIES is a number"), 200),
        Err(_) => (1, 25),
    }
}

pub fn first_seed() -> u64 {
    std::env::var("SESSION_MEMORY_SEED")
        .map_or(1, |seed| seed.parse().expect("SESSION_MEMORY_SEED is a number"))
}
