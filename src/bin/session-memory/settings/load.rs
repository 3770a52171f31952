//! Settings of one run: from the command line, the environment and the configuration file.
//!
//! No error quotes a line that may hold a secret: see [`describe`].

use std::{ffi::OsString, path::Path};

use clap::{Arg, ArgAction, ArgMatches};

use super::{
    pick::{Env, Pick, SettingsError},
    row::Row,
    table::{ConfigFile, Settings, TABLE},
};

/// The settings of a file, the environment and flags together.
///
/// # Errors
///
/// [`SettingsError::Value`], which names the flag or the variable.
pub(crate) fn resolve(
    file: ConfigFile,
    env: Env<'_>,
    flags: Option<&ArgMatches>,
) -> Result<Settings, SettingsError> {
    Settings::resolve(file, &Pick { env, flags })
}

/// Reads a configuration file.
///
/// # Errors
///
/// [`SettingsError::Unreadable`], and [`SettingsError::File`] with the line.
pub(crate) fn read_file(path: &Path) -> Result<ConfigFile, SettingsError> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|source| SettingsError::Unreadable { path: name.clone(), source })?;
    toml::from_str(&text)
        .map_err(|error| SettingsError::File { path: name, message: describe(&error, &text) })
}

/// The flags of the table.
pub(crate) fn arguments() -> impl Iterator<Item = Arg> {
    TABLE.iter().map(|row| {
        let arg = Arg::new(row.name)
            .long(row.flag())
            .value_name(row.placeholder)
            .help(format!("{} [env: {}] [default: {}]", row.help.trim(), row.variable(), row.default))
            .help_heading(row.group)
            .hide_default_value(true);
        match row.placeholder {
            "BOOL" => arg.num_args(0..=1).default_missing_value("true").action(ArgAction::Set),
            _ => arg.action(ArgAction::Append),
        }
    })
}

/// The environment variables that look like settings and are none.
///
/// The caller warns and goes on: Kubernetes sets such variables for every service of a namespace.
pub(crate) fn unknown_variables(names: impl Iterator<Item = OsString>) -> Vec<String> {
    let known: Vec<String> = TABLE.iter().map(Row::variable).chain(OTHERS.map(str::to_owned)).collect();
    let mut unknown: Vec<String> = names
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.starts_with("SESSION_MEMORY_") && !known.contains(name))
        .filter(|name| !["_SERVICE_", "_PORT_"].iter().any(|infix| name.contains(infix)))
        .filter(|name| name != "SESSION_MEMORY_PORT")
        .collect();
    unknown.sort();
    unknown
}

/// The variables that are not settings of the table.
const OTHERS: [&str; 6] = [
    "SESSION_MEMORY_CONFIG",
    "SESSION_MEMORY_COOKIE_SECRET",
    "SESSION_MEMORY_ENCRYPTION_KEY",
    "SESSION_MEMORY_FROM",
    "SESSION_MEMORY_OWNER",
    "SESSION_MEMORY_PRINCIPAL_SECRET",
];

/// The parser's error, with the quoted line unless that line may hold a secret.
fn describe(error: &toml::de::Error, text: &str) -> String {
    let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].lines().count().max(1));
    let quoted = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    let key = quoted.split('=').next().unwrap_or_default();
    let key = key.trim_matches(|c: char| c.is_whitespace() || ['"', '\''].contains(&c));
    if ["store", "upstream"].contains(&key) && quoted.contains(['@', '?', '/']) {
        return format!("line {line}: {key}: {}", error.message());
    }
    // With any spelling of the key, and on any line of a longer text.
    if quoted.contains("://") && quoted.contains('@') {
        return format!("line {line}: {}", error.message());
    }
    let quoted_lower = quoted.to_ascii_lowercase();
    let holds_secret = ["secret", "encryption_key"].iter().any(|name| quoted_lower.contains(name));
    if holds_secret && !quoted.contains("secret_file") && !quoted.contains("key_file") {
        return format!(
            "line {line}: {key}: secrets are given in a file of their own, or in the environment"
        );
    }
    error.to_string().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{super::pick::SetBy, *};

    fn env(name: &str) -> Option<OsString> {
        (name == "SESSION_MEMORY_WINDOW_TURNS").then(|| "7".into())
    }

    #[test]
    fn the_environment_goes_before_the_file() {
        let file: ConfigFile = toml::from_str("window_turns = 5\nmax_turns = 9").unwrap();
        let settings = resolve(file, &env, None).unwrap();
        assert_eq!(settings.window_turns.unwrap().get(), 7);
        assert_eq!(settings.max_turns.unwrap().get(), 9);
        let sources: Vec<_> = settings.shown().map(|(row, _, source)| (row.name, source)).collect();
        assert!(sources.contains(&("window_turns", SetBy::Env)));
        assert!(sources.contains(&("max_turns", SetBy::File)));
        assert!(sources.contains(&("upstream", SetBy::Default)));
    }

    #[test]
    fn every_default_is_its_own_canonical_spelling() {
        let settings =
            resolve(ConfigFile::default(), &|_| None, None).unwrap_or_else(|error| panic!("{error}"));
        for (row, value, _) in settings.shown() {
            assert_eq!(value, row.default, "the default of {} is not what check prints", row.name);
        }
    }

    #[test]
    fn lists_are_lists_in_a_file() {
        let file: ConfigFile =
            toml::from_str("session_header = [\"x-a\", \"x-b\"]\ntrusted_origins = []").unwrap();
        let settings = resolve(file, &|_| None, None).unwrap();
        assert_eq!(settings.session_header.len(), 2);
        assert!(settings.trusted_origins.is_empty());
    }

    #[test]
    fn a_secret_in_a_file_is_not_quoted() {
        for name in ["cookie_secret", "encryption_key"] {
            let text = format!("{name} = \"hunter2hunter2\"");
            let error = toml::from_str::<ConfigFile>(&text).err().unwrap();
            let message = describe(&error, &text);
            assert!(!message.contains("hunter2"), "the secret is in the message: {message}");
            assert!(message.contains(name), "the key is not named: {message}");
        }
    }

    #[test]
    fn the_password_in_the_url_of_a_store_is_not_quoted() {
        let text = "\nstore = \"redis://me:hunter2@host:port\"";
        let error = toml::from_str::<ConfigFile>(text).err().unwrap();
        let message = describe(&error, text);
        assert!(!message.contains("hunter2"), "the password is in the message: {message}");
        assert!(
            message.contains("line 2") && message.contains("port"),
            "it is said what is wrong: {message}"
        );
    }

    #[test]
    fn no_spelling_of_the_key_gets_a_password_quoted() {
        for text in [
            "\"store\" = \"redis://me:hunter2@host:port\"",
            "\"s\\u0074ore\" = \"redis://me:hunter2@host:port\"",
            "store\t= \"redis://me:hunter2@host:port\"",
            "store = \"\"\"\nredis://me:hunter2@host:port\"\"\"",
            "store = \"\"\"\\\nredis://me:hunter2@host\\q\"\"\"",
            "stroe = \"redis://me:hunter2@host\"",
        ] {
            let error = toml::from_str::<ConfigFile>(text).err().unwrap();
            let message = describe(&error, text);
            assert!(!message.contains("hunter2"), "{text}: the password is in the message: {message}");
            assert!(message.contains("line "), "{text}: {message}");
        }
    }

    #[test]
    fn misspelt_variables_are_noticed_and_kubernetes_is_not() {
        let names = [
            "SESSION_MEMORY_UPSTREEM",
            "SESSION_MEMORY_UPSTREAM",
            "SESSION_MEMORY_SERVICE_HOST",
            "SESSION_MEMORY_PORT_8080_TCP",
            "HOME",
        ];
        let unknown = unknown_variables(names.into_iter().map(OsString::from));
        assert_eq!(unknown, ["SESSION_MEMORY_UPSTREEM"]);
    }
}
