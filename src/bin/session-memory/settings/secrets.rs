//! Secrets: from files of their own or the environment, never from the settings themselves.

use std::{ffi::OsString, path::Path};

use secrecy::{ExposeSecret, SecretString};
use tower_session_memory::store::encrypted::{InvalidKeyRing, KeyRing};

use super::{pick::Env, table::Settings, value::PrincipalFrom};

/// The secrets of a run.
#[derive(Default)]
pub(crate) struct Secrets {
    /// The first signs session cookies, all verify them.
    pub(crate) cookie: Vec<SecretString>,
    /// Keys the digest of credentials.
    pub(crate) principal: Option<SecretString>,
    /// Encrypts turns.
    pub(crate) encryption: Option<KeyRing>,
    shown: Vec<(&'static str, String)>,
}

/// Error of settings and secrets that do not fit together.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("upstream is not set: give --upstream URL, such as --upstream http://127.0.0.1:11434")]
    NoUpstream,
    #[error("{0}")]
    Contradiction(&'static str),
    #[error("cannot read {name} {path}: {source}")]
    Unreadable { name: &'static str, path: String, source: std::io::Error },
    #[error("{name}: a secret of {length} bytes is too short; {SHORTEST} or more are accepted")]
    ShortSecret { name: &'static str, length: usize },
    #[error("encryption_key: {0}")]
    KeyRing(#[source] InvalidKeyRing),
    #[error("{0}: there is no secret in it")]
    NoSecret(&'static str),
    #[error("{0} is set both as a file and in the environment; give one")]
    TwoSecrets(&'static str),
}

/// The shortest secret that is accepted, in bytes: the size of the digest that it keys (RFC 2104, section 3).
const SHORTEST: usize = 32;

impl Secrets {
    /// Reads the secrets that the settings and the environment name.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], when one cannot be read or is too short.
    pub(crate) fn load(settings: &Settings, env: Env<'_>) -> Result<Self, ConfigError> {
        let mut shown = Vec::new();
        let mut load = |name, file: Option<&Path>, variable| {
            let keys = secret(name, file, env(variable))?;
            shown.push((name, describe(keys.len(), file.is_some())));
            Ok(keys)
        };
        let cookie =
            load("cookie_secret", settings.cookie_secret_file.as_deref(), "SESSION_MEMORY_COOKIE_SECRET")?;
        let principal = load(
            "principal_secret",
            settings.principal_secret_file.as_deref(),
            "SESSION_MEMORY_PRINCIPAL_SECRET",
        )?;
        let file = settings.encryption_key_file.as_deref();
        let keys = text("encryption_key", file, env("SESSION_MEMORY_ENCRYPTION_KEY"))?;
        let encryption = keys.map(|keys| KeyRing::parse(keys.expose_secret())).transpose();
        let encryption = encryption.map_err(ConfigError::KeyRing)?;
        let keys = encryption.as_ref().map_or(0, |ring| ring.ids().count());
        shown.push(("encryption_key", describe(keys, file.is_some())));
        Ok(Self { cookie, principal: principal.into_iter().next(), encryption, shown })
    }

    /// Checks the secrets against the settings.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Contradiction`].
    pub(crate) fn fit(&self, settings: &Settings) -> Result<(), ConfigError> {
        let contradiction = |text| Err(ConfigError::Contradiction(text));
        if self.principal.is_some() && settings.principal != PrincipalFrom::Credential {
            return contradiction("there is a principal secret, but principal is not credential");
        }
        if settings.encryption_accept_plain && self.encryption.is_none() {
            return contradiction("encryption_accept_plain is set, but there is no encryption key");
        }
        Ok(())
    }

    /// The names of the secrets, and the source of each; never their values.
    pub(crate) fn shown(&self) -> Vec<(&'static str, String)> {
        self.shown.clone()
    }
}

fn describe(keys: usize, in_file: bool) -> String {
    match (keys, in_file) {
        (0, _) => "not set".to_owned(),
        (keys, true) => format!("set     {keys} in the file"),
        (keys, false) => format!("set     {keys} in the environment"),
    }
}

/// Secrets, one a line.
fn secret(
    name: &'static str,
    file: Option<&Path>,
    variable: Option<OsString>,
) -> Result<Vec<SecretString>, ConfigError> {
    let Some(text) = text(name, file, variable)? else { return Ok(Vec::new()) };
    let lines = text.expose_secret().lines().map(str::trim);
    let keys: Vec<SecretString> = lines.filter(|line| !line.is_empty()).map(SecretString::from).collect();
    if keys.is_empty() {
        return Err(ConfigError::NoSecret(name));
    }
    match keys.iter().map(|key| key.expose_secret().len()).find(|length| *length < SHORTEST) {
        Some(length) => Err(ConfigError::ShortSecret { name, length }),
        None => Ok(keys),
    }
}

/// The secret text of a file or of the environment.
///
/// # Errors
///
/// [`ConfigError`], when the file cannot be read, or both are set.
pub(crate) fn text(
    name: &'static str,
    file: Option<&Path>,
    variable: Option<OsString>,
) -> Result<Option<SecretString>, ConfigError> {
    let variable = variable.filter(|value| !value.is_empty());
    let text =
        match (file, variable) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => return Err(ConfigError::TwoSecrets(name)),
            (Some(path), None) => std::fs::read_to_string(path).map_err(|source| {
                ConfigError::Unreadable { name, path: path.display().to_string(), source }
            })?,
            (None, Some(value)) => value.into_string().map_err(|_| ConfigError::NoSecret(name))?,
        };
    Ok(Some(SecretString::from(text)))
}
