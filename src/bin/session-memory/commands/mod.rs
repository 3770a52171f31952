//! The command line: one file or folder a command, each with its flags (`command`) and its work (`run`).

mod check;
mod demo;
mod flags;
#[cfg(feature = "import")]
mod import;
mod migrate;
mod serve;
mod settings;

use std::process::ExitCode;

use clap::{ArgMatches, Command};

use crate::error::BoxError;

/// A command's flags and its work.
type CommandEntry = (fn() -> Command, fn(&ArgMatches) -> Result<ExitCode, BoxError>);

/// Every command, in the order in which help lists them.
const COMMANDS: &[CommandEntry] = &[
    (serve::command, serve::run),
    (check::command, check::run),
    (migrate::command, migrate::run),
    #[cfg(feature = "import")]
    (import::command, import::run),
    (demo::command, demo::run),
    (settings::command, settings::run),
];

/// Parses the command line and runs the command.
///
/// # Errors
///
/// When the settings, the start or the command fail.
pub(crate) fn run() -> Result<ExitCode, BoxError> {
    let matches = command_line().get_matches();
    let Some((name, flags)) = matches.subcommand() else { return Ok(ExitCode::from(2)) };
    match COMMANDS.iter().find(|(command, _)| command().get_name() == name) {
        Some((_, run)) => run(flags),
        None => Ok(ExitCode::from(2)),
    }
}

fn command_line() -> Command {
    Command::new("session-memory")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Gives conversations with an OpenAI-format server a memory: clients send only what is new")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(COMMANDS.iter().map(|(command, _)| command()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_sound() {
        super::command_line().debug_assert();
    }
}
