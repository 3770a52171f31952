//! Medians, ratios and the two forms of the table.

use std::{fmt::Write, time::Duration};

use crate::{
    client::Sample,
    common::stats::{median, quantile, shown, sorted},
    run::{Scenario, Target},
};

/// One repetition of one target.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    requests: usize,
    /// Requests a second.
    rate: f64,
    /// Microseconds of the target's CPU a request.
    cpu: Option<f64>,
    /// Milliseconds until the reply's first bytes, and until its last.
    first_p50: f64,
    p50: f64,
    p99: f64,
}

impl Block {
    pub(crate) fn new(samples: Vec<Sample>, wall: Duration, cpu: Option<Duration>) -> Self {
        let count = samples.len() as f64;
        let first = sorted(samples.iter().map(|sample| sample.first.as_secs_f64() * 1e3));
        let whole = sorted(samples.iter().map(|sample| sample.whole.as_secs_f64() * 1e3));
        Self {
            requests: samples.len(),
            rate: count / wall.as_secs_f64(),
            cpu: cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / count),
            first_p50: quantile(&first, 0.5),
            p50: quantile(&whole, 0.5),
            p99: quantile(&whole, 0.99),
        }
    }
}

/// All repetitions of one target in one scenario.
pub(crate) struct Row {
    scenario: String,
    target: Target,
    blocks: Vec<Block>,
}

impl Row {
    pub(crate) fn new(scenario: &Scenario, target: Target, blocks: Vec<Block>) -> Self {
        Self { scenario: scenario.name(), target, blocks }
    }

    fn median(&self, what: impl Fn(&Block) -> Option<f64>) -> Option<f64> {
        median(self.blocks.iter().map(what))
    }

    /// The median of the ratios to another row, a repetition to the same repetition.
    fn ratio(&self, to: &Self, what: impl Fn(&Block) -> Option<f64>) -> Option<f64> {
        median(self.blocks.iter().zip(&to.blocks).map(|(own, other)| Some(what(own)? / what(other)?)))
    }
}

/// The table. Ratios are to (b) in the same repetition.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let mut table = String::from(
        "| scenario | target | req/s | CPU µs/req | p50 ms | p99 ms | first byte p50 ms | CPU ÷ (b) | p50 ÷ (b) | req/s ÷ (b) |\n\
         |---|---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for (row, base) in with_base(rows) {
        let median = |what: fn(&Block) -> Option<f64>, digits| shown(row.median(what), digits);
        let ratio = |what: fn(&Block) -> Option<f64>| shown(row.ratio(base, what), 2);
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            row.scenario,
            row.target.name(),
            median(|b| Some(b.rate), 0),
            median(|b| b.cpu, 1),
            median(|b| Some(b.p50), 3),
            median(|b| Some(b.p99), 3),
            median(|b| Some(b.first_p50), 3),
            ratio(|b| b.cpu),
            ratio(|b| Some(b.p50)),
            ratio(|b| Some(b.rate)),
        );
    }
    table
}

/// Every repetition by itself.
pub(crate) fn csv(rows: &[Row]) -> String {
    let mut lines = String::from(
        "scenario,target,repetition,requests,requests_per_s,cpu_us,p50_ms,p99_ms,first_p50_ms\n",
    );
    for row in rows {
        for (repetition, block) in row.blocks.iter().enumerate() {
            let _ = writeln!(
                lines,
                "{},{},{},{},{:.1},{},{:.4},{:.4},{:.4}",
                row.scenario,
                row.target.name(),
                repetition + 1,
                block.requests,
                block.rate,
                block.cpu.map_or(String::new(), |cpu| format!("{cpu:.2}")),
                block.p50,
                block.p99,
                block.first_p50,
            );
        }
    }
    lines
}

/// Each row beside row (b) of its scenario.
fn with_base(rows: &[Row]) -> impl Iterator<Item = (&Row, &Row)> {
    rows.iter().filter_map(|row| {
        let base = rows.iter().find(|base| base.scenario == row.scenario && base.target == Target::Proxy)?;
        Some((row, base))
    })
}
