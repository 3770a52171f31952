//! `check`: validates the settings, and prints those in force.

use std::process::ExitCode;

use clap::{ArgMatches, Command};

use super::flags::{environment, read, unknown_variables, with_settings};
use crate::{
    error::BoxError,
    settings::{self, Config, Secrets},
};

pub(super) fn command() -> Command {
    with_settings(Command::new("check").about("Validate the settings and print what is in force"))
}

/// # Errors
///
/// When the settings cannot be read, or contradict each other.
pub(super) fn run(flags: &ArgMatches) -> Result<ExitCode, BoxError> {
    let settings = read(flags)?;
    let secrets = Secrets::load(&settings, &environment)?;
    print!("{}", settings::list(&settings, &secrets.shown()));
    Config::new(settings, secrets)?;
    for name in unknown_variables() {
        eprintln!("session-memory: WARNING: {name} looks like a setting, but there is none of its name");
    }
    println!("\nThe settings are valid.");
    Ok(ExitCode::SUCCESS)
}
