//! `settings`: prints the table of settings that the README shows.

use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};

use crate::{error::BoxError, settings};

pub(super) fn command() -> Command {
    Command::new("settings")
        .hide(true)
        .about("Print the table of settings")
        .arg(Arg::new("markdown").long("markdown").num_args(0))
}

/// # Errors
///
/// Never.
pub(super) fn run(_flags: &ArgMatches) -> Result<ExitCode, BoxError> {
    print!("{}", settings::markdown());
    Ok(ExitCode::SUCCESS)
}
