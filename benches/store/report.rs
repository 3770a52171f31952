//! The table, and what it must show.

use std::{fmt::Write, time::Duration};

use crate::{
    common::stats::{median, quantile, shown, sorted},
    error::BoxError,
    operation::Operation,
    servers::Traffic,
};

/// One repetition of one operation on one store.
#[derive(Default)]
pub(crate) struct Block {
    pub(crate) samples: Vec<Duration>,
    /// CPU time of this process.
    pub(crate) ours: Duration,
    /// That of the server's processes.
    pub(crate) server: Option<Duration>,
}

/// All repetitions of an operation on one store at one length.
pub(crate) struct Row {
    pub(crate) store: &'static str,
    pub(crate) turns: usize,
    pub(crate) operation: Operation,
    pub(crate) blocks: Vec<Block>,
    pub(crate) traffic: Option<Traffic>,
}

impl Row {
    /// Microseconds of each, the median of the repetitions.
    fn each(&self, what: impl Fn(&Block) -> Option<Duration>) -> Option<f64> {
        median(self.blocks.iter().map(|block| Some(micros(what(block)?) / block.samples.len() as f64)))
    }

    /// Microseconds within which so large a part of all repetitions' operations were done.
    fn within(&self, part: f64) -> Option<f64> {
        let samples = self.blocks.iter().flat_map(|block| block.samples.iter().copied().map(micros));
        Some(quantile(&sorted(samples), part))
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

pub(crate) fn markdown(rows: &[Row]) -> String {
    let mut table = String::from(
        "| store | turns | operation | round trips | bytes from it | bytes to it | CPU µs, ours | CPU µs, server | p50 µs | p99 µs |\n\
         |---|--:|---|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for row in rows {
        let moved =
            |what: fn(Traffic) -> u64| row.traffic.map_or("–".to_owned(), |moved| what(moved).to_string());
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            row.store,
            row.turns,
            row.operation.name(),
            moved(|moved| moved.round_trips),
            moved(|moved| moved.received),
            moved(|moved| moved.sent),
            shown(row.each(|block| Some(block.ours)), 0),
            shown(row.each(|block| block.server), 0),
            shown(row.within(0.5), 0),
            shown(row.within(0.99), 0),
        );
    }
    table
}

/// Fails unless loading a session that is cached takes one round trip, and moves no more the longer it is.
pub(crate) fn check(rows: &[Row]) -> Result<(), BoxError> {
    for row in rows.iter().filter(|row| row.operation != Operation::Whole) {
        let Some(moved) = row.traffic else { continue };
        let alike = |other: &&Row| other.store == row.store && other.operation == row.operation;
        let least = rows.iter().filter(alike).filter_map(|other| other.traffic);
        let least = least.map(|moved| moved.sent + moved.received).min().unwrap_or(0);
        let name = format!("{}, {} turns, {}", row.store, row.turns, row.operation.name());
        if moved.round_trips != 1 {
            return Err(format!("{name}: {} round trips", moved.round_trips).into());
        }
        if moved.sent + moved.received > least + 100 {
            return Err(
                format!("{name}: {} bytes, where {least} will do", moved.sent + moved.received).into()
            );
        }
    }
    Ok(())
}
