//! The command line.

use std::{path::PathBuf, process::ExitCode};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::{BoxError, config::Config, demo, import, log, serve, settings, store};

/// Parses the command line and does what it says.
///
/// # Errors
///
/// When the settings, the start or the demonstration fail.
pub(crate) fn run() -> Result<ExitCode, BoxError> {
    match command().get_matches().subcommand() {
        Some(("serve", flags)) => {
            let config = load(flags)?;
            log::install(&config.settings)?;
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
        Some(("import", flags)) => import(flags),
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
             replies cut or turns not stored, or something of a source not imported, 130 a second signal.",
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
        .subcommand(with_settings(
            Command::new("import")
                .about("Take over the conversations that LangChain or the OpenAI Agents SDK kept")
                .args(import_arguments()),
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

fn import_arguments() -> [Arg; 5] {
    let heading = "What to import";
    [
        Arg::new("from")
            .long("from")
            .value_name("SOURCE")
            .help(
                "langchain-redis://HOST[:PORT][/DB], agents-redis://HOST[:PORT][/DB] or agents-sqlite:PATH; \
                 langchain-rediss and agents-rediss for TLS, langchain-unix:PATH and agents-unix:PATH for sockets. \
                 ?prefix=KEYS reads other keys than those that both packages use by default, ?tls_ca=FILE trusts \
                 other certificates, ?table=NAME reads another table. Flags are seen by every user of the machine: \
                 give a password in the environment [env: SESSION_MEMORY_FROM]",
            )
            .help_heading(heading),
        Arg::new("owner_file")
            .long("owner-file")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help(
                "File with the header by which the proxy knows the owner of these sessions, as their client sends \
                 it: `authorization: Bearer KEY`, or NAME: VALUE with principal = header:NAME. Or set \
                 SESSION_MEMORY_OWNER",
            )
            .help_heading(heading),
        Arg::new("anonymous")
            .long("anonymous")
            .action(ArgAction::SetTrue)
            .help("The sessions become those of clients that send no credential")
            .help_heading(heading),
        Arg::new("session")
            .long("session")
            .value_name("ID")
            .action(ArgAction::Append)
            .help("Only this session; may be given more than once")
            .help_heading(heading),
        Arg::new("dry_run")
            .long("dry-run")
            .action(ArgAction::SetTrue)
            .help("Read and compare everything, and store no turn")
            .help_heading(heading),
    ]
}

fn import(flags: &ArgMatches) -> Result<ExitCode, BoxError> {
    let settings = read(flags)?;
    log::install(&settings)?;
    let secrets = crate::config::Secrets::load(&settings, &environment)?;
    secrets.fit(&settings)?;
    let from = flags.get_one::<String>("from").cloned();
    let from = from.or_else(|| environment("SESSION_MEMORY_FROM")?.into_string().ok());
    let from = from.filter(|from| !from.is_empty()).ok_or("from is not set: give --from SOURCE")?;
    let owner_file = flags.get_one::<PathBuf>("owner_file").map(PathBuf::as_path);
    let order = import::Order {
        from: from.parse().map_err(|error| format!("--from: {error}"))?,
        owner: crate::config::text("owner", owner_file, environment("SESSION_MEMORY_OWNER"))?,
        anonymous: flags.get_flag("anonymous"),
        only: flags.get_many("session").into_iter().flatten().cloned().collect(),
        dry_run: flags.get_flag("dry_run"),
    };
    import::run(&settings, &secrets, &order)
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
