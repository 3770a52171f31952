//! Log lines, on stderr.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::{
    BoxError,
    settings::{LogFormat, Settings},
};

/// Installs the subscriber for the process.
///
/// # Errors
///
/// When there is one already.
pub(crate) fn install(settings: &Settings) -> Result<(), BoxError> {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && !no_color)
        .with_env_filter(EnvFilter::new(&settings.log.0));
    match settings.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    }
}
