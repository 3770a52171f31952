//! Log lines, on stderr.

use tracing_subscriber::EnvFilter;

use crate::{BoxError, config::Config, settings::LogFormat};

/// Installs the subscriber for the process.
///
/// # Errors
///
/// When there is one already.
pub(crate) fn install(config: &Config) -> Result<(), BoxError> {
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(EnvFilter::new(&config.settings.log.0));
    match config.settings.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    }
}
