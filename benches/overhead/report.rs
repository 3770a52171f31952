//! The tables and the plot.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    common::{machine::Machine, stats::shown},
    error::BoxError,
    goals,
    options::Options,
    python,
    rows::{Figure, Rows},
    scenarios::Group,
    targets::Target,
};

/// The scenarios of the README's table.
const IN_SHORT: [&str; 6] = [
    "JSON c=1 t=0",
    "JSON c=16 t=0",
    "JSON c=16 t=20",
    "JSON c=16 t=200",
    "SSE c=16 t=20",
    "1.6 MB session c=16",
];

const COMMAND: &str = "cargo bench --features proxy --bench overhead";

/// Prints what was measured as Markdown, and writes it, the figures and the plots to files.
///
/// # Errors
///
/// When a file cannot be written. A plot that cannot be drawn is only reported.
pub(crate) fn publish(rows: &Rows, machine: &Machine, options: &Options) -> Result<(), BoxError> {
    let here = match options.save {
        true => python::source("").parent().ok_or("no directory")?.to_owned(),
        false => PathBuf::from(env!("CARGO_TARGET_TMPDIR")),
    };
    let mut text = machine.describe(COMMAND, options.repetitions) + "\n";
    text += &goals::markdown(rows, machine.cores());
    let (scenarios, targets) = names(rows, &[Group::Chat, Group::Large]);
    let few: Vec<String> =
        scenarios.iter().filter(|name| IN_SHORT.contains(&name.as_str())).cloned().collect();
    text += "\nIn short:\n";
    text += &matrix(rows, "CPU µs per request", &few, &targets, |block| block.cpu);
    text += "\nAll of it:\n";
    text += &matrix(rows, "CPU µs per request", &scenarios, &targets, |block| block.cpu);
    text += &matrix(rows, "p50 ms", &scenarios, &targets, |block| block.p50);
    text += &table(rows);
    text += &memory(rows);
    text += &saturation(rows);
    println!("{text}");
    fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join("overhead.md"), &text)?;
    let csv = here.join("overhead.csv");
    fs::write(&csv, rows.csv())?;
    println!("Also in {}", csv.display());
    if options.plot {
        match plot(&csv) {
            Ok(()) => println!("and in {} and beside it", csv.with_extension("png").display()),
            Err(error) => eprintln!("overhead: no plot: {error}"),
        }
    }
    Ok(())
}

fn plot(csv: &Path) -> Result<(), BoxError> {
    let python = python::environment("plot")?.join("python");
    python::run(Command::new(python).arg(python::source("plot/plot.py")).arg(csv))
}

/// Targets as rows, scenarios as columns.
fn matrix(rows: &Rows, title: &str, scenarios: &[String], targets: &[Target], what: Figure) -> String {
    if scenarios.is_empty() {
        return String::new();
    }
    let mut table =
        format!("\n| {title} | {} |\n|---|{}\n", scenarios.join(" | "), "--:|".repeat(scenarios.len()));
    for target in targets {
        let cells: Vec<String> = scenarios
            .iter()
            .map(|scenario| {
                let figure = rows.get(scenario, *target).and_then(|row| row.median(what));
                shown(figure, figure.map_or(0, digits))
            })
            .collect();
        if cells.iter().any(|cell| cell != "–") {
            let _ = writeln!(table, "| {} | {} |", target.name(), cells.join(" | "));
        }
    }
    table
}

fn digits(figure: f64) -> usize {
    match figure {
        small if small < 10.0 => 2,
        middle if middle < 100.0 => 1,
        _ => 0,
    }
}

/// The scenarios of these groups and their targets, each once, in order.
fn names(rows: &Rows, groups: &[Group]) -> (Vec<String>, Vec<Target>) {
    let (mut scenarios, mut targets) = (Vec::new(), Vec::new());
    for row in rows.0.iter().filter(|row| groups.contains(&row.group)) {
        if !scenarios.contains(&row.scenario) {
            scenarios.push(row.scenario.clone());
        }
        if !targets.contains(&row.target) && row.target != Target::Wire {
            targets.push(row.target);
        }
    }
    (scenarios, targets)
}

/// Everything that was asked something. Ratios are to the bare proxy in the same repetition.
fn table(rows: &Rows) -> String {
    let mut table = String::from(
        "\n| scenario | target | req/s | CPU µs/req | store's CPU µs/req | p50 ms | p99 ms | first byte p50 ms \
         | gap p50 ms | gap p99 ms | memory MiB | CPU ÷ bare | p50 ÷ bare |\n\
         |---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for row in rows.0.iter().filter(|row| !matches!(row.group, Group::Streams | Group::Saturation)) {
        let base = rows.get(&row.scenario, Target::Bare);
        let median = |what: Figure, digits| shown(row.median(what), digits);
        let ratio = |what: Figure| shown(base.and_then(|base| row.ratio(base, what)), 2);
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            row.scenario,
            row.target.name(),
            median(|block| block.rate, 0),
            median(|block| block.cpu, 1),
            median(|block| block.store_cpu, 1),
            median(|block| block.p50, 3),
            median(|block| block.p99, 3),
            median(|block| block.first_p50, 3),
            median(|block| block.gap_p50, 3),
            median(|block| block.gap_p99, 3),
            median(|block| block.memory, 1),
            ratio(|block| block.cpu),
            ratio(|block| block.p50),
        );
    }
    table
}

/// MiB at rest and with open streams, and KiB for each.
fn memory(rows: &Rows) -> String {
    let rows: Vec<_> = rows.0.iter().filter(|row| row.group == Group::Streams).collect();
    if rows.is_empty() {
        return String::new();
    }
    let mut table = String::from(
        "\n| scenario | target | memory at rest MiB | with them MiB | KiB for each |\n|---|---|--:|--:|--:|\n",
    );
    for row in rows {
        let each =
            row.median(|block| Some((block.memory? - block.at_rest?) * 1024.0 / block.requests as f64));
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} | {} |",
            row.scenario,
            row.target.name(),
            shown(row.median(|block| block.at_rest), 1),
            shown(row.median(|block| block.memory), 1),
            shown(each, 1),
        );
    }
    table
}

fn saturation(rows: &Rows) -> String {
    let rows: Vec<_> = rows.0.iter().filter(|row| row.group == Group::Saturation).collect();
    if rows.is_empty() {
        return String::new();
    }
    let mut table = String::from(
        "\n| clients | target | answered/s | p50 ms | p99 ms | refused | CPU µs/req | memory MiB |\n\
         |--:|---|--:|--:|--:|--:|--:|--:|\n",
    );
    for row in rows {
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            row.concurrency,
            row.target.name(),
            shown(row.median(|block| block.rate), 0),
            shown(row.median(|block| block.p50), 1),
            shown(row.median(|block| block.p99), 1),
            shown(row.median(|block| block.refused), 2),
            shown(row.median(|block| block.cpu), 1),
            shown(row.median(|block| block.memory), 1),
        );
    }
    table
}
