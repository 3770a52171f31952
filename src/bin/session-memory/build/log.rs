//! The subscriber that writes log lines to stderr.

use std::io::IsTerminal;

use tracing::{Level, Metadata};
use tracing_subscriber::{EnvFilter, filter::filter_fn, layer::SubscriberExt, util::SubscriberInitExt};

use crate::{
    error::BoxError,
    settings::{LogFormat, Settings},
};

/// Installs the subscriber for the process.
///
/// # Errors
///
/// When a subscriber is installed already.
pub(crate) fn install_log(settings: &Settings) -> Result<(), BoxError> {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && !no_color)
        .with_env_filter(EnvFilter::new(&settings.log.0));
    let silent = filter_fn(|metadata| !has_content(metadata));
    match settings.log_format {
        LogFormat::Text => builder.finish().with(silent).try_init()?,
        LogFormat::Json => builder.json().finish().with(silent).try_init()?,
    }
    Ok(())
}

/// Whether a line may hold message content, which no setting can ask for.
///
/// The PostgreSQL driver logs the parameters of each statement, whole turns, at `debug` and `trace`.
fn has_content(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("tokio_postgres") && *metadata.level() > Level::INFO
}
