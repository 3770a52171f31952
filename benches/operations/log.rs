//! What is made of a loaded log: its index, its path, and the window of what is sent.

use std::hint::black_box;

use tower_session_memory::{Window, history::Log, unstable::window_start};

use super::{
    fixtures::{log, turns},
    operation::Operation,
};

pub(super) fn all() -> Vec<Operation> {
    [20, 200, 2000].into_iter().flat_map(of).collect()
}

fn of(length: usize) -> [Operation; 3] {
    let index = Operation::new(format!("log: index, {length} turns"), move || {
        let turns = turns(length);
        Box::new(move || {
            black_box(black_box(&turns).iter().cloned().collect::<Log>());
        })
    });
    let path = Operation::new(format!("log: path, {length} turns"), move || {
        let log = log(length);
        Box::new(move || {
            black_box(black_box(&log).path());
        })
    });
    let window = Operation::new(format!("log: path and window, {length} turns"), move || {
        let log = log(length);
        Box::new(move || {
            black_box(window_start(Window::default(), &black_box(&log).path()));
        })
    });
    [index.rounds((20_000 / length).min(200)), path, window]
}
