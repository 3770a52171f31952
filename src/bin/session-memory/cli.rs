//! The command line.

use std::{path::PathBuf, process::ExitCode};

use clap::{Arg, ArgMatches, Command, value_parser};

use crate::{BoxError, config::Config, demo, log, serve, settings, store};

/// Parses the command line and does what it says.
///
/// # Errors
///
/// When the settings, the start or the demonstration fail.
pub(crate) fn run() -> Result<ExitCode, BoxError> {
    match command().get_matches().subcommand() {
        Some(("serve", flags)) => {
            let config = load(flags)?;
            log::install(&config)?;
            for name in unknown_variables() {
                tracing::warn!(
                    name,
                    "this environment variable looks like a setting, but there is none of its name"
                );
            }
            serve::run(config)
        }
        Some(("check", flags)) => {
            let settings = read(flags)?;
            let secrets = crate::config::Secrets::load(&settings, &environment)?;
            print!("{}", settings::list(&settings, &secrets.shown()));
            Config::new(settings, secrets)?;
            for name in unknown_variables() {
                eprintln!(
                    "session-memory: WARNING: {name} looks like a setting, but there is none of its name"
                );
            }
            println!("\nThe settings are valid.");
            Ok(ExitCode::SUCCESS)
        }
        Some(("migrate", flags)) => migrate(&read(flags)?),
        Some(("demo", _)) => demo::run(),
        Some(("settings", _)) => {
            print!("{}", settings::markdown());
            Ok(ExitCode::SUCCESS)
        }
        _ => Ok(ExitCode::from(2)),
    }
}

fn command() -> Command {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("TOML file with any of the settings below [env: SESSION_MEMORY_CONFIG]");
    let with_settings = |command: Command| {
        command.arg(config.clone()).args(settings::arguments()).after_help(
            "Each setting is a flag, an environment variable or a key of the file; the first of these counts.\n\
             Exit codes: 0 all is done and stored, 1 settings or start, 2 command line, 3 ended by a signal with\n\
             replies cut or turns not stored, 130 a second signal.",
        )
    };
    Command::new("session-memory")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Gives conversations with an OpenAI-format server a memory: clients send only what is new")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(with_settings(Command::new("serve").about("Run the proxy")))
        .subcommand(with_settings(
            Command::new("check").about("Validate the settings and print what is in force"),
        ))
        .subcommand(with_settings(
            Command::new("migrate").about("Make the store's tables, or bring them up to date"),
        ))
        .subcommand(
            Command::new("demo")
                .about("Hold a conversation that survives a kill, with a scripted model and no network"),
        )
        .subcommand(
            Command::new("settings")
                .hide(true)
                .about("Print the table of settings")
                .arg(Arg::new("markdown").long("markdown").num_args(0)),
        )
}

fn migrate(settings: &settings::Settings) -> Result<ExitCode, BoxError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(store::migrate(settings))? {
        None => println!("This store has nothing to migrate."),
        Some(done) if done.from == done.to => println!("The schema has version {} already.", done.to),
        Some(done) => println!("The schema went from version {} to {}.", done.from, done.to),
    }
    Ok(ExitCode::SUCCESS)
}

fn load(flags: &ArgMatches) -> Result<Config, BoxError> {
    let settings = read(flags)?;
    let secrets = crate::config::Secrets::load(&settings, &environment)?;
    Ok(Config::new(settings, secrets)?)
}

fn read(flags: &ArgMatches) -> Result<settings::Settings, BoxError> {
    let path = flags
        .get_one::<PathBuf>("config")
        .cloned()
        .or_else(|| environment("SESSION_MEMORY_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from));
    let file = match path {
        Some(path) => settings::read_file(&path)?,
        None => settings::File::default(),
    };
    Ok(settings::resolve(file, &environment, Some(flags))?)
}

fn environment(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name)
}

fn unknown_variables() -> Vec<String> {
    settings::unknown_variables(std::env::vars_os().map(|(name, _)| name))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_sound() {
        super::command().debug_assert();
    }
}
