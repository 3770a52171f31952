//! The figures, the committed ones, and what holds between them.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde::Deserialize;

use crate::error::BoxError;

const UPDATE: &str = "bash tests/costs.sh --update";

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    /// Of the library's operations.
    Instructions,
    /// Of the program.
    ProgramInstructions,
    Allocations,
    AllocatedBytes,
    SystemCalls,
    RedisCommands,
    RoundTrips,
}

impl Unit {
    const ALL: [Self; 7] = [
        Self::Instructions,
        Self::ProgramInstructions,
        Self::Allocations,
        Self::AllocatedBytes,
        Self::SystemCalls,
        Self::RedisCommands,
        Self::RoundTrips,
    ];

    /// Its table in the file.
    fn table(self) -> &'static str {
        match self {
            Self::Instructions => "instructions",
            Self::ProgramInstructions => "program_instructions",
            Self::Allocations => "allocations",
            Self::AllocatedBytes => "allocated_bytes",
            Self::SystemCalls => "system_calls",
            Self::RedisCommands => "redis_commands",
            Self::RoundTrips => "round_trips",
        }
    }

    /// How far a figure may move from an earlier one of the same machine although the code has not changed.
    fn margin(self, name: &str, committed: f64) -> f64 {
        match self {
            Self::Instructions => committed * 0.05,
            // What is inlined into what moves with compiler flags: 6 % was seen with those that a build may be given.
            Self::ProgramInstructions => committed * 0.08,
            Self::AllocatedBytes => committed * 0.03,
            // Its threads meet as they come, and how many pages a transaction writes depends on where its rows fall:
            // from 32 to 40 calls were seen. A transaction more is 15.
            Self::SystemCalls if name.starts_with("SQLite") => committed * 0.4,
            Self::SystemCalls => (committed * 0.05).max(0.3),
            Self::Allocations | Self::RedisCommands | Self::RoundTrips => 0.0,
        }
    }

    fn rounded(self, value: f64) -> f64 {
        match self {
            Self::SystemCalls => (value * 100.0).round() / 100.0,
            // Whether a script sets an expiry again depends on the clock, so not every turn does; once in a long
            // while is nothing.
            Self::RedisCommands => (value - 0.05).ceil(),
            _ => value.round(),
        }
    }
}

type Table = BTreeMap<String, f64>;

/// What was counted in this run.
#[derive(Default)]
pub(crate) struct Figures(BTreeMap<Unit, Table>);

impl Figures {
    pub(crate) fn add(&mut self, unit: Unit, name: &str, value: f64) {
        let value = unit.rounded(value);
        // A command that is called once in a long while, as a slow machine may see one.
        if unit == Unit::RedisCommands && value <= 0.0 {
            return;
        }
        self.0.entry(unit).or_default().insert(name.to_owned(), value);
    }

    /// Takes over what another count of some of them has found smaller. A command that it has not seen in a turn that
    /// it has counted is none.
    pub(crate) fn lower(&mut self, other: Self) {
        for (unit, again) in other.0 {
            let of_the_same_turn =
                |one: &str, other: &str| one.split(": ").next() == other.split(": ").next();
            let counted = |name: &str| again.keys().any(|other| of_the_same_turn(name, other));
            let Some(ours) = self.0.get_mut(&unit) else { continue };
            ours.retain(|name, value| match again.get(name) {
                Some(found) => {
                    *value = value.min(*found);
                    true
                }
                None => unit != Unit::RedisCommands || !counted(name),
            });
        }
    }

    /// # Errors
    ///
    /// When a request without a session takes more instructions than a bare proxy's, whatever was committed; or, if all
    /// are asked for, one of them was not counted.
    pub(crate) fn compare_with_bare(&self, all: bool) -> Result<(), BoxError> {
        let of = |name: String| self.0.get(&Unit::ProgramInstructions)?.get(&name).copied();
        for request in ["a request", "a request with 200 turns"] {
            let both = of(format!("no session: {request}")).zip(of(format!("{BARE}{request}")));
            match both {
                Some((ours, bare)) if ours > bare * AS_BARE => {
                    return Err(
                        format!("{request} takes {ours} instructions, and {bare} of a bare proxy").into()
                    );
                }
                None if all => return Err(format!("{request}: not counted of both proxies").into()),
                _ => {}
            }
        }
        Ok(())
    }
}

/// How the names of the bare proxy's figures begin.
const BARE: &str = "bare proxy: ";

/// What the program may cost where it has nothing to remember, a bare proxy being 1: 3 %, and 2 % for how the two are
/// inlined.
const AS_BARE: f64 = 1.05;

/// How a figure stands to the committed one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Within its margin, or not to be compared.
    Kept,
    Fallen,
    Grown,
    New,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Kept => "",
            Self::Fallen => "fallen",
            Self::Grown => "GROWN",
            Self::New => "NEW",
        }
    }
}

/// What identifies a machine, as `tests/costs.sh --machine` prints it.
type Machine = BTreeMap<String, String>;

/// Earlier figures: those of a file, and the machine on which they were counted.
#[derive(Default, Deserialize)]
pub(crate) struct Committed {
    machine: Machine,
    #[serde(flatten)]
    figures: BTreeMap<Unit, Table>,
    /// Whether this machine is the one that counted them. On another machine figures are shown, and none is compared.
    #[serde(skip)]
    counted_here: bool,
    /// Whether they are of another commit: a figure that only one of the two counts is no fault.
    #[serde(skip)]
    of_another_commit: bool,
}

impl Committed {
    /// Reads the committed figures, or those of another commit in this file.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or the machine cannot be identified.
    pub(crate) fn read(against: Option<&Path>) -> Result<Self, BoxError> {
        let path = against.map_or_else(file, Path::to_owned);
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut committed: Self = toml::from_str(&text)?;
        committed.counted_here = committed.machine == machine()?;
        committed.of_another_commit = against.is_some();
        Ok(committed)
    }

    /// Writes the file anew; with a part of the figures only that part, which must be of the same machine.
    ///
    /// # Errors
    ///
    /// When the file cannot be written, or would be of two machines.
    pub(crate) fn update(mut self, measured: Figures, all: bool) -> Result<(), BoxError> {
        if all {
            self.figures = measured.0;
        } else if self.counted_here {
            for (unit, table) in measured.0 {
                self.figures.entry(unit).or_default().extend(table);
            }
        } else {
            return Err("the other figures are of another machine: update all of them".into());
        }
        let mut text = format!(
            "# What the library and the program cost. Written by\n#\n#     {UPDATE}\n#\n# What stands here, and how it is \
             compared: benches/README.md.\n\n[machine]\n",
        );
        for (what, value) in machine()? {
            writeln!(text, "{what} = {value:?}")?;
        }
        for (unit, table) in &self.figures {
            write!(text, "\n[{}]\n", unit.table())?;
            for (name, value) in table {
                writeln!(text, "{name:?} = {value}")?;
            }
        }
        fs::write(file(), text)?;
        println!("{} is written.", file().display());
        Ok(())
    }

    /// The names of those that are past their margins, or commands that were not called before.
    pub(crate) fn grown(&self, measured: &Figures) -> BTreeSet<String> {
        let all = measured.0.iter().flat_map(|(&unit, table)| table.iter().map(move |figure| (unit, figure)));
        let grown = all.filter(|(unit, (name, value))| match self.verdict(*unit, name, **value) {
            Verdict::Grown => true,
            Verdict::New => *unit == Unit::RedisCommands,
            Verdict::Kept | Verdict::Fallen => false,
        });
        grown.map(|(_, (name, _))| name.clone()).collect()
    }

    fn verdict(&self, unit: Unit, name: &str, value: f64) -> Verdict {
        if !self.counted_here {
            return Verdict::Kept;
        }
        let Some(&before) = self.figures.get(&unit).and_then(|table| table.get(name)) else {
            return Verdict::New;
        };
        // How the bare proxy's few lines are inlined depends on where they are built; they are not ours to hold.
        if name.starts_with(BARE) {
            return Verdict::Kept;
        }
        let margin = unit.margin(name, before);
        match value {
            value if value > before + margin => Verdict::Grown,
            value if value < before - margin => Verdict::Fallen,
            _ => Verdict::Kept,
        }
    }

    /// # Errors
    ///
    /// When a figure has grown past its margin; when one is new or is no longer counted, although all were asked for.
    pub(crate) fn compare(&self, measured: &Figures, all: bool) -> Result<(), BoxError> {
        let (mut wrong, mut fallen, mut counted) = (Vec::new(), 0, 0);
        for unit in Unit::ALL {
            let none = Table::new();
            let committed = self.figures.get(&unit).unwrap_or(&none);
            let measured = measured.0.get(&unit).unwrap_or(&none);
            println!("\n{}", unit.table());
            for (name, &value) in measured {
                counted += 1;
                let verdict = self.verdict(unit, name, value);
                let before = committed.get(name).map_or("-".to_owned(), f64::to_string);
                println!("  {value:>12} {before:>12}  {name}  {}", verdict.word());
                match verdict {
                    Verdict::Kept => {}
                    Verdict::Fallen => fallen += 1,
                    Verdict::New if self.of_another_commit && !self.counts_turn_of(unit, name) => {}
                    Verdict::New | Verdict::Grown => {
                        wrong.push(format!("{}: {name}: {value}, committed {before}", unit.table()));
                    }
                }
            }
            let expected = all && self.counted_here && !self.of_another_commit;
            for name in committed.keys().filter(|name| expected && !measured.contains_key(*name)) {
                match unit {
                    // A command that is called no more.
                    Unit::RedisCommands => fallen += 1,
                    _ => wrong.push(format!("{}: {name}: no longer counted", unit.table())),
                }
            }
        }
        if !self.counted_here {
            println!(
                "\nThe committed figures are of another machine: bash tests/costs.sh compares two commits."
            );
            return Ok(());
        }
        if fallen > 0 && !self.of_another_commit {
            println!("\n{fallen} figures have fallen. Hold them there: {UPDATE}");
        }
        if wrong.is_empty() {
            println!("\n{counted} figures are within their margins.");
            return Ok(());
        }
        let (before, meant) = match self.of_another_commit {
            true => ("the earlier commit's", "say so in the commit".to_owned()),
            false => ("the committed ones", UPDATE.to_owned()),
        };
        Err(format!(
            "these figures are not {before}:\n  {}\nWhere that is meant: {meant}\nWhere the instructions went: \
             callgrind_annotate target/tmp/cost/NAME.callgrind",
            wrong.join("\n  ")
        )
        .into())
    }

    /// Whether a command is one of a turn whose other commands the earlier figures contain.
    fn counts_turn_of(&self, unit: Unit, name: &str) -> bool {
        let turn = name.split(": ").next();
        let names = self.figures.get(&unit).into_iter().flat_map(Table::keys);
        unit == Unit::RedisCommands && names.into_iter().any(|other| other.split(": ").next() == turn)
    }
}

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/cost/figures.toml")
}

/// # Errors
///
/// When the script that identifies a machine fails.
fn machine() -> Result<Machine, BoxError> {
    #[derive(Deserialize)]
    struct Printed {
        machine: Machine,
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/costs.sh");
    let output = Command::new("bash").arg(script).arg("--machine").output()?;
    let printed: Printed = toml::from_str(&String::from_utf8(output.stdout)?)?;
    Ok(printed.machine)
}
