//! `migrate`: creates the store's tables, or brings them up to date.

use std::process::ExitCode;

use clap::{ArgMatches, Command};

use super::flags::{read, with_settings};
use crate::{build, error::BoxError};

pub(super) fn command() -> Command {
    with_settings(Command::new("migrate").about("Make the store's tables, or bring them up to date"))
}

/// # Errors
///
/// When the store cannot be reached, or refuses the migration.
pub(super) fn run(flags: &ArgMatches) -> Result<ExitCode, BoxError> {
    let settings = read(flags)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(build::migrate(&settings))? {
        None => println!("This store has nothing to migrate."),
        Some(done) if done.from == done.to => println!("The schema has version {} already.", done.to),
        Some(done) => println!("The schema went from version {} to {}.", done.from, done.to),
    }
    Ok(ExitCode::SUCCESS)
}
