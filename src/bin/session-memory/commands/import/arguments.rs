//! Flags and environment variables of `import`.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use secrecy::SecretString;

use super::{
    super::flags::{environment, with_settings},
    source_url::SourceUrl,
};
use crate::{error::BoxError, settings};

/// Flags of `import` beside the settings.
pub(super) struct Order {
    pub(super) from: SourceUrl,
    /// The header that the sessions' clients send.
    pub(super) owner: Option<SecretString>,
    /// Whether the clients send no credential.
    pub(super) anonymous: bool,
    /// Only these sessions; all if the list is empty.
    pub(super) only: Vec<String>,
    pub(super) dry_run: bool,
}

/// `import`, and its flags.
pub(in crate::commands) fn command() -> Command {
    with_settings(
        Command::new("import")
            .about("Take over the conversations that LangChain or the OpenAI Agents SDK kept")
            .args(arguments()),
    )
}

impl Order {
    /// # Errors
    ///
    /// When no source is given, its URL cannot be read, or the owner's file cannot be.
    pub(super) fn read(flags: &ArgMatches) -> Result<Self, BoxError> {
        let from = flags.get_one::<String>("from").cloned();
        let from = from.or_else(|| environment("SESSION_MEMORY_FROM")?.into_string().ok());
        let from = from.filter(|from| !from.is_empty()).ok_or("from is not set: give --from SOURCE")?;
        let owner_file = flags.get_one::<PathBuf>("owner_file").map(PathBuf::as_path);
        Ok(Self {
            from: from.parse().map_err(|error| format!("--from: {error}"))?,
            owner: owner(owner_file)?,
            anonymous: flags.get_flag("anonymous"),
            only: flags.get_many("session").into_iter().flatten().cloned().collect(),
            dry_run: flags.get_flag("dry_run"),
        })
    }
}

fn owner(file: Option<&Path>) -> Result<Option<SecretString>, BoxError> {
    Ok(settings::text("owner", file, environment("SESSION_MEMORY_OWNER"))?)
}

fn arguments() -> [Arg; 5] {
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
