//! Flags that several commands share: the settings, and the configuration file.

use std::{ffi::OsString, path::PathBuf};

use clap::{Arg, ArgMatches, Command, value_parser};

use crate::{
    error::BoxError,
    settings::{self, Settings},
};

/// The command with a flag for each setting, and one for the configuration file.
pub(super) fn with_settings(command: Command) -> Command {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("TOML file with any of the settings below [env: SESSION_MEMORY_CONFIG]");
    command.arg(config).args(settings::arguments()).after_help(
        "Each setting is a flag, an environment variable or a key of the file; the first of these counts.\n\
         Exit codes: 0 all is done and stored, 1 settings or start, 2 command line, 3 ended by a signal with\n\
         replies cut or turns not stored, or something of a source not imported, 130 a second signal.",
    )
}

/// The settings of flags, environment and file.
///
/// # Errors
///
/// When the file cannot be read, or a value cannot be parsed.
pub(super) fn read(flags: &ArgMatches) -> Result<Settings, BoxError> {
    let path = flags
        .get_one::<PathBuf>("config")
        .cloned()
        .or_else(|| environment("SESSION_MEMORY_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from));
    let file = match path {
        Some(path) => settings::read_file(&path)?,
        None => settings::ConfigFile::default(),
    };
    Ok(settings::resolve(file, &environment, Some(flags))?)
}

/// The value of an environment variable.
pub(super) fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// The environment variables that look like settings and are none.
pub(super) fn unknown_variables() -> Vec<String> {
    settings::unknown_variables(std::env::vars_os().map(|(name, _)| name))
}
