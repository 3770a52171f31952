//! The library's operations one by one: how long each takes, beside what others do in its place.
//!
//! ```sh
//! cargo bench --bench micro                      # all of it, in minutes
//! cargo bench --bench micro -- 'request: .* 200' # those whose name matches
//! ```
//!
//! How many instructions and allocations each takes: `cost`.

#![allow(missing_docs)]

#[path = "../operations/mod.rs"]
mod operations;

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};

use operations::Operation;

fn micro(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("micro");
    for operation in operations::all() {
        group.bench_function(&operation.name, |bencher| {
            bencher.iter_custom(|times| time(&operation, times));
        });
    }
    group.finish();
}

/// Measures `times` runs of an operation, without their preparation.
fn time(operation: &Operation, times: u64) -> Duration {
    let mut left = times;
    let mut total = Duration::ZERO;
    while left > 0 {
        let mut round = operation.prepare();
        let rounds = left.min(operation.rounds as u64);
        let started = Instant::now();
        (0..rounds).for_each(|_| round());
        total += started.elapsed();
        left -= rounds;
    }
    total
}

criterion_group!(benches, micro);
criterion_main!(benches);
