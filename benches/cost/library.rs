//! The library's operations: instructions and allocations of each.

use std::env;

use stats_alloc::{Region, Stats};

use crate::{
    allocator::ALLOCATOR,
    error::BoxError,
    figures::{Figures, Unit},
    operations::{self, Operation},
    options::Options,
    process::Program,
    tools,
};

/// The argument that makes this program do one operation; the next two are its name and how often.
pub(crate) const ROLE: &str = "as-operation";

/// How often an operation is done before it counts: what is made at first use is made then.
const WARM: usize = 2;
/// How often it is done at most to count its allocations, of which the median is taken.
const COUNTED: usize = 32;

pub(crate) fn main(name: &str, times: &str) -> Result<(), BoxError> {
    let all = operations::all();
    let operation = all.iter().find(|operation| operation.name == name).ok_or("no such operation")?;
    let mut round = operation.prepare();
    (0..times.parse()?).for_each(|_| round());
    Ok(())
}

/// The operations of ours that are asked for.
fn wanted(options: &Options) -> impl Iterator<Item = Operation> {
    operations::all().into_iter().filter(|operation| !operation.only_timed && options.wants(&operation.name))
}

pub(crate) fn allocations(options: &Options, figures: &mut Figures) {
    for operation in wanted(options) {
        let mut round = operation.prepare();
        (0..WARM).for_each(|_| round());
        let samples = (WARM..operation.rounds.min(COUNTED)).map(|_| {
            let region = Region::new(ALLOCATOR);
            round();
            region.change()
        });
        add_allocations(figures, &operation.name, samples.collect());
    }
}

/// The medians: a table that grows does so once in many operations.
pub(crate) fn add_allocations(figures: &mut Figures, name: &str, samples: Vec<Stats>) {
    let median = |what: fn(&Stats) -> usize| {
        let mut values: Vec<usize> = samples.iter().map(what).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or_default() as f64
    };
    figures.add(Unit::Allocations, name, median(|stats| stats.allocations + stats.reallocations));
    figures.add(Unit::AllocatedBytes, name, median(|stats| stats.bytes_allocated));
}

/// The difference of two runs, so that neither the start nor the preparation counts.
pub(crate) fn instructions(options: &Options, figures: &mut Figures) -> Result<(), BoxError> {
    let operations: Vec<Operation> = wanted(options).collect();
    let counted = tools::in_parallel(&operations, |operation| {
        let more = operation.rounds - WARM;
        let run = |times: usize| {
            let program = Program::new(env::current_exe()?, [ROLE, &operation.name, &times.to_string()]);
            tools::instructions(&program, &operation.name)
        };
        let less = run(WARM)?;
        Ok((run(WARM + more)? - less) / more as f64)
    })?;
    for (operation, instructions) in operations.iter().zip(counted) {
        figures.add(Unit::Instructions, &operation.name, instructions);
    }
    Ok(())
}
