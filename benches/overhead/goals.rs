//! What was promised, beside what was seen.

use crate::{
    rows::{Figure, Row, Rows},
    scenarios::Group,
    streams,
    targets::Target::{
        self, Bare, LangChain, LiteLlm, Memory, Pass, Postgres, Redis, Sqlite, Uncached, Wire,
    },
};

/// One promise. The figures are of several targets, or scenarios; all of them must keep it.
pub(crate) struct Goal {
    name: &'static str,
    what: String,
    bound: Bound,
    seen: Vec<(String, Option<f64>)>,
}

#[derive(Clone, Copy)]
enum Bound {
    AtMost(f64, &'static str),
    AtLeast(f64, &'static str),
}

impl Goal {
    /// A line of the table; `None` where nothing was measured.
    fn line(&self) -> Option<String> {
        let seen: Vec<(&str, f64)> =
            self.seen.iter().filter_map(|(of, figure)| Some((of.as_str(), (*figure)?))).collect();
        if seen.is_empty() {
            return None;
        }
        let digits = |figure: f64| if figure.abs() < 10.0 { 2 } else { 0 };
        let told: Vec<String> =
            seen.iter().map(|(of, figure)| format!("{of} {figure:.*}", digits(*figure))).collect();
        let (bound, unit, kept) = match self.bound {
            Bound::AtMost(bound, unit) => (format!("≤ {bound}"), unit, seen.iter().all(|(_, f)| *f <= bound)),
            Bound::AtLeast(bound, unit) => {
                (format!("≥ {bound}"), unit, seen.iter().all(|(_, f)| *f >= bound))
            }
        };
        let kept = if kept { "yes" } else { "**no**" };
        Some(format!("| {} | {} | {bound} {unit} | {} | {kept} |", self.name, self.what, told.join(", ")))
    }
}

pub(crate) fn markdown(rows: &Rows, cores: usize) -> String {
    let lines: Vec<String> = all(rows, cores).iter().filter_map(Goal::line).collect();
    format!("| | goal | bound | seen | reached |\n|---|---|---|---|---|\n{}\n", lines.join("\n"))
}

const CPU: Figure = |block| block.cpu;
const P50: Figure = |block| block.p50;
const RATE: Figure = |block| block.rate;
const GAP: Figure = |block| block.gap_p99;
const MEMORY: Figure = |block| block.memory;

const DEPTHS: [usize; 3] = [0, 20, 200];

fn all(rows: &Rows, cores: usize) -> Vec<Goal> {
    let goal = |name, what: &str, bound, seen| Goal { name, what: what.to_owned(), bound, seen };
    let bare =
        |target: Target, scenarios: &[String], what: Figure| ratios(rows, scenarios, target, Bare, what);
    let chat = |concurrency, depths: &[usize]| -> Vec<String> {
        depths.iter().map(|depth| format!("JSON c={concurrency} t={depth}")).collect()
    };
    let (sse, long) = ("SSE c=16 t=20".to_owned(), "SSE 400 words c=16 t=0".to_owned());
    let paced = "SSE at 5 ms c=16 t=0";
    let large = ["1.6 MB session c=16".to_owned()];
    let bodies: Vec<String> = scenarios(rows, Group::Body);
    let times = Bound::AtMost;
    let per_core = |concurrency| -> Vec<(String, Option<f64>)> {
        let seen = ratios(rows, &chat(concurrency, &DEPTHS), Redis, LiteLlm, RATE);
        seen.into_iter().map(|(of, ratio)| (of, ratio.map(|ratio| ratio / cores as f64))).collect()
    };
    let [few, _, many] = streams::LEVELS;
    let over_turns = |target| bare(target, &[streams::name(200, many)], MEMORY);
    let each = |target| {
        let ratio = stream(rows, target, few, many).zip(stream(rows, Bare, few, many));
        vec![(format!("from {few} to {many} streams:"), ratio.map(|(own, bare)| own / bare))]
    };
    vec![
        goal("G0", "without a session: CPU, bare = 1", times(1.03, "×"), bare(Pass, &bodies, CPU)),
        goal(
            "G1",
            "in memory, new sessions: CPU, bare = 1",
            times(1.2, "×"),
            bare(Memory, &[chat(16, &[0]), chat(64, &[0])].concat(), CPU),
        ),
        goal(
            "G2",
            "Redis, new sessions: CPU, bare = 1",
            times(1.5, "×"),
            bare(Redis, &[chat(16, &[0]), chat(64, &[0])].concat(), CPU),
        ),
        goal(
            "G2",
            "Redis: first byte after bare's, less one Redis round trip",
            times(20.0, "µs"),
            vec![("JSON c=1 t=0:".to_owned(), after_bare(rows))],
        ),
        goal(
            "G3",
            "CPU for each KB of history, in memory, bare = 1",
            times(0.75, "×"),
            growths(rows, Memory),
        ),
        goal("G3", "the same, SQLite", times(0.75, "×"), growths(rows, Sqlite)),
        goal("G3", "the same, Redis", times(0.75, "×"), growths(rows, Redis)),
        goal(
            "G4",
            "LiteLLM without memory: CPU, ours with Redis = 1, one client",
            Bound::AtLeast(100.0, "×"),
            ratios(rows, &chat(1, &DEPTHS), LiteLlm, Redis, CPU),
        ),
        goal(
            "G4",
            "the same, 16 clients",
            Bound::AtLeast(300.0, "×"),
            ratios(rows, &chat(16, &DEPTHS), LiteLlm, Redis, CPU),
        ),
        goal(
            "G4",
            "the same, streams",
            Bound::AtLeast(100.0, "×"),
            ratios(rows, std::slice::from_ref(&sse), LiteLlm, Redis, CPU),
        ),
        goal(
            "G4",
            "ours with Redis: requests per second and core, LiteLLM = 1",
            Bound::AtLeast(200.0, "×"),
            [per_core(16), per_core(64)].concat(),
        ),
        goal(
            "G5",
            "LangChain + Redis: CPU, ours with Redis = 1, one client",
            Bound::AtLeast(70.0, "×"),
            ratios(rows, &chat(1, &[0, 20]), LangChain, Redis, CPU),
        ),
        goal(
            "G5",
            "the same, 16 clients",
            Bound::AtLeast(200.0, "×"),
            ratios(rows, &chat(16, &[0, 20]), LangChain, Redis, CPU),
        ),
        goal(
            "G5",
            "the same, 200 turns",
            Bound::AtLeast(500.0, "×"),
            ratios(rows, &[chat(1, &[200]), chat(16, &[200])].concat(), LangChain, Redis, CPU),
        ),
        goal("G6", "1.6 MB session in Redis: CPU, bare = 1", times(0.75, "×"), bare(Redis, &large, CPU)),
        goal("G6", "the same: p50, bare = 1", times(0.75, "×"), bare(Redis, &large, P50)),
        goal(
            "G6",
            "the same: Redis' CPU for each turn",
            times(60.0, "µs"),
            vec![(String::new(), rows.get(&large[0], Redis).and_then(|row| row.median(|b| b.store_cpu)))],
        ),
        goal(
            "G7",
            "a stream's CPU, in memory, bare = 1",
            times(1.05, "×"),
            bare(Memory, &[sse.clone(), long.clone()], CPU),
        ),
        goal("G7", "the same, Redis", times(1.05, "×"), bare(Redis, &[sse, long.clone()], CPU)),
        goal(
            "G7",
            "a chunk's CPU (400 words less a JSON reply), bare = 1",
            times(1.05, "×"),
            [Memory, Redis].map(|target| (told(target), chunk(rows, &long, target))).into(),
        ),
        goal(
            "G7",
            "p99 of the gap between chunks at a model's pace, after bare's",
            times(50.0, "µs"),
            [Memory, Redis]
                .map(|target| {
                    let pair = rows.get(paced, target).zip(rows.get(paced, Bare));
                    (told(target), pair.and_then(|(own, bare)| own.with(bare, GAP, |own, bare| own - bare)))
                })
                .map(|(of, gap)| (of, gap.map(|gap| gap * 1000.0)))
                .into(),
        ),
        goal(
            "G8",
            "memory at rest",
            times(10.0, "MiB"),
            [Memory, Sqlite, Redis, Postgres].map(|target| (told(target), rest(rows, target))).into(),
        ),
        goal("G8", "memory of an open stream, in memory, bare = 1", times(1.15, "×"), each(Memory)),
        goal("G8", "the same, Redis", times(1.15, "×"), each(Redis)),
        goal("G8", "memory with streams over 200 turns, Redis, bare = 1", times(1.1, "×"), over_turns(Redis)),
        goal("G8", "the same without the cache", times(1.1, "×"), over_turns(Uncached)),
    ]
}

fn told(target: Target) -> String {
    target.name().to_owned()
}

fn scenarios(rows: &Rows, group: Group) -> Vec<String> {
    let mut names: Vec<String> =
        rows.0.iter().filter(|row| row.group == group).map(|row| row.scenario.clone()).collect();
    names.dedup();
    names
}

/// One target's figure, another's being 1, in each scenario.
fn ratios(
    rows: &Rows,
    scenarios: &[String],
    target: Target,
    to: Target,
    what: Figure,
) -> Vec<(String, Option<f64>)> {
    let ratio = |name: &String| {
        let pair = rows.get(name, target).zip(rows.get(name, to));
        (format!("{name}:"), pair.and_then(|(own, other)| own.ratio(other, what)))
    };
    scenarios.iter().map(ratio).collect()
}

/// Microseconds by which Redis' first byte comes later than bare's, but for a round trip of the same repetition.
fn after_bare(rows: &Rows) -> Option<f64> {
    let row = |target| rows.get("JSON c=1 t=0", target);
    let (redis, bare, wire) = (row(Redis)?, row(Bare)?, row(Wire)?);
    let first: Figure = |block| block.first_p50;
    let later = redis.with(bare, first, |own, bare| own - bare)?;
    Some((later - wire.median(first)?) * 1000.0)
}

/// What a target pays for each KB of history, bare being 1: at each concurrency, and in the largest session.
fn growths(rows: &Rows, target: Target) -> Vec<(String, Option<f64>)> {
    let growth = |from: &str, to: &str| {
        let slope = |target| slope(rows.get(from, target)?, rows.get(to, target)?);
        Some(slope(target)? / slope(Bare)?)
    };
    let mut seen: Vec<(String, Option<f64>)> = [1, 16, 64]
        .map(|c| (format!("c={c}:"), growth(&format!("JSON c={c} t=0"), &format!("JSON c={c} t=200"))))
        .into();
    seen.push(("1.6 MB:".to_owned(), growth("JSON c=16 t=0", "1.6 MB session c=16")));
    seen
}

/// Microseconds of CPU for each KB that one scenario's requests have more than the other's.
fn slope(from: &Row, to: &Row) -> Option<f64> {
    Some((to.median(CPU)? - from.median(CPU)?) / ((to.bytes - from.bytes) as f64 / 1000.0))
}

/// What a chunk costs, bare being 1: a stream of many, less a reply that is none.
fn chunk(rows: &Rows, stream: &str, target: Target) -> Option<f64> {
    let chunks = |target| {
        let [stream, json] = [stream, "JSON c=16 t=0"].map(|name| rows.get(name, target));
        Some(stream?.median(CPU)? - json?.median(CPU)?)
    };
    Some(chunks(target)? / chunks(Bare)?)
}

/// MiB that a further open stream takes; the first ones bring the program's own pages.
fn stream(rows: &Rows, target: Target, few: usize, many: usize) -> Option<f64> {
    let memory = |streams| {
        let row = rows.get(&streams::name(0, streams), target)?;
        Some((row.median(MEMORY)?, row.blocks.first()?.requests as f64))
    };
    let ((from, few), (to, many)) = (memory(few)?, memory(many)?);
    Some((to - from) / (many - few))
}

/// The memory of new processes.
fn rest(rows: &Rows, target: Target) -> Option<f64> {
    rows.0.iter().find(|row| row.target == target && row.group != Group::Large)?.median(|block| block.at_rest)
}
