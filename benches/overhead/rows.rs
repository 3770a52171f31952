//! What is taken down of a target in a scenario.

use std::{fmt::Write, time::Duration};

use crate::{
    client::Measured,
    common::stats::{median, quantile, sorted},
    scenarios::Group,
    targets::Target,
};

/// One repetition of one target.
#[derive(Clone, Copy, Default)]
pub(crate) struct Block {
    pub(crate) requests: usize,
    /// Requests a second.
    pub(crate) rate: Option<f64>,
    /// Microseconds of CPU a request: of the target, and of the server that keeps its sessions.
    pub(crate) cpu: Option<f64>,
    pub(crate) store_cpu: Option<f64>,
    /// Milliseconds until the reply's first bytes, and until its last.
    pub(crate) first_p50: Option<f64>,
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
    /// Milliseconds between two pieces of a stream.
    pub(crate) gap_p50: Option<f64>,
    pub(crate) gap_p99: Option<f64>,
    /// MiB of the target at rest, and at the end.
    pub(crate) at_rest: Option<f64>,
    pub(crate) memory: Option<f64>,
    /// The part of the requests that were refused.
    pub(crate) refused: Option<f64>,
}

impl Block {
    pub(crate) fn new(measured: Measured) -> Self {
        let Measured { samples, gaps, wall } = measured;
        let count = samples.len() as f64;
        let first = sorted(samples.iter().map(|sample| millis(sample.first)));
        let whole = sorted(samples.iter().map(|sample| millis(sample.whole)));
        let gaps = sorted(gaps.into_iter().map(millis));
        let gap = |at| (!gaps.is_empty()).then(|| quantile(&gaps, at));
        Self {
            requests: samples.len(),
            rate: Some(count / wall.as_secs_f64()),
            first_p50: Some(quantile(&first, 0.5)),
            p50: Some(quantile(&whole, 0.5)),
            p99: Some(quantile(&whole, 0.99)),
            gap_p50: gap(0.5),
            gap_p99: gap(0.99),
            ..Self::default()
        }
    }

    /// Microseconds of CPU time per request.
    pub(crate) fn each(&self, cpu: Option<Duration>) -> Option<f64> {
        Some(cpu?.as_secs_f64() * 1e6 / self.requests as f64)
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A part of what is taken down.
pub(crate) type Figure = fn(&Block) -> Option<f64>;

/// All repetitions of one target in one scenario.
pub(crate) struct Row {
    pub(crate) group: Group,
    pub(crate) scenario: String,
    pub(crate) target: Target,
    pub(crate) concurrency: usize,
    /// What the upstream is sent by a request of it, in the middle.
    pub(crate) bytes: usize,
    pub(crate) blocks: Vec<Block>,
}

impl Row {
    pub(crate) fn median(&self, what: Figure) -> Option<f64> {
        median(self.blocks.iter().map(what))
    }

    /// The median of what is made of this row's figure and another's, of the same repetition.
    pub(crate) fn with(&self, other: &Self, what: Figure, made: impl Fn(f64, f64) -> f64) -> Option<f64> {
        let pairs = self.blocks.iter().zip(&other.blocks);
        median(pairs.map(|(own, other)| Some(made(what(own)?, what(other)?))))
    }

    pub(crate) fn ratio(&self, to: &Self, what: Figure) -> Option<f64> {
        self.with(to, what, |own, other| own / other)
    }
}

/// All rows of a run.
#[derive(Default)]
pub(crate) struct Rows(pub(crate) Vec<Row>);

impl Rows {
    pub(crate) fn get(&self, scenario: &str, target: Target) -> Option<&Row> {
        self.0.iter().find(|row| row.scenario == scenario && row.target == target)
    }

    /// Every repetition by itself.
    pub(crate) fn csv(&self) -> String {
        let mut lines = String::from(
            "group,scenario,target,concurrency,bytes,repetition,requests,requests_per_s,cpu_us,store_cpu_us,\
             first_p50_ms,p50_ms,p99_ms,gap_p50_ms,gap_p99_ms,rest_mib,memory_mib,refused\n",
        );
        for row in &self.0 {
            for (repetition, block) in row.blocks.iter().enumerate() {
                let _ = write!(
                    lines,
                    "{:?},{},\"{}\",{},{},{},{}",
                    row.group,
                    row.scenario,
                    row.target.name(),
                    row.concurrency,
                    row.bytes,
                    repetition + 1,
                    block.requests
                );
                let figures = [
                    block.rate,
                    block.cpu,
                    block.store_cpu,
                    block.first_p50,
                    block.p50,
                    block.p99,
                    block.gap_p50,
                    block.gap_p99,
                    block.at_rest,
                    block.memory,
                    block.refused,
                ];
                for figure in figures {
                    let _ = match figure {
                        Some(figure) => write!(lines, ",{figure:.4}"),
                        None => write!(lines, ","),
                    };
                }
                lines.push('\n');
            }
        }
        lines
    }
}

pub(crate) fn mebibytes(kibibytes: u64) -> f64 {
    kibibytes as f64 / 1024.0
}
