//! The server out of settings: its gate, its admission, and the layer around a forwarding service for each worker.

use std::sync::Arc;

use http::{HeaderName, header};
use tower::Layer;
use tower_session_memory::SessionMemoryLayer;

use super::layer::principal;
use crate::{
    error::BoxError,
    server::{Admission, App, Gate, Intake, ReplyCounters, Server, Workers},
    settings::Config,
    traffic::Work,
    upstream::Forward,
};

/// The layer around a forwarding service with connections of its own, for each of `count` workers.
///
/// # Errors
///
/// When no certificate can be trusted, or a file with certificates cannot be read.
pub(crate) fn apps(
    config: &Config,
    memory: &SessionMemoryLayer,
    count: usize,
    work: &Work,
) -> Result<Vec<App>, BoxError> {
    (0..count).map(|_| Ok(memory.layer(Forward::new(config, work.clone())?))).collect()
}

/// The server. Its counters belong to the recorder that is installed now.
pub(crate) fn server(config: &Config, workers: Workers, apps: Vec<App>, work: &Work) -> Arc<Server> {
    let settings = &config.settings;
    let intake = Intake {
        gate: gate(config),
        admission: Admission::new(settings.max_requests),
        replies: ReplyCounters::new(),
        body_read_timeout: settings.body_read_timeout,
        tasks: work.tasks.clone(),
    };
    Arc::new(Server {
        apps,
        workers,
        intake: Arc::new(intake),
        header_read_timeout: settings.header_read_timeout,
        keep_alive_timeout: settings.keep_alive_timeout,
        send_timeout: settings.send_timeout,
        work: work.clone(),
    })
}

fn gate(config: &Config) -> Gate {
    let settings = &config.settings;
    let principal = principal(settings, &config.secrets);
    let mut deciding = vec![header::COOKIE, HeaderName::from_static("session-memory")];
    deciding.extend(principal.headers().iter().chain(&settings.session_header).cloned());
    Gate { suffixes: settings.paths.iter().map(|suffix| suffix.0.clone()).collect(), deciding }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tower_session_memory::session::PrincipalPolicy;

    use super::*;
    use crate::settings::{ConfigFile, Secrets, resolve};

    fn deciding(principal: &str) -> Vec<HeaderName> {
        let env = |name: &str| match name {
            "SESSION_MEMORY_UPSTREAM" => Some("http://127.0.0.1:1".into()),
            "SESSION_MEMORY_PRINCIPAL" => Some(principal.into()),
            "SESSION_MEMORY_SESSION_HEADER" => Some("x-a,x-b".into()),
            _ => None,
        };
        let settings = resolve(ConfigFile::default(), &env, None).unwrap();
        gate(&Config::new(settings, Secrets::default()).unwrap()).deciding
    }

    #[test]
    fn no_header_that_decides_on_a_session_can_be_taken_away_by_a_connection_header() {
        let credentials = PrincipalPolicy::credential();
        for name in ["cookie", "session-memory", "x-a", "x-b", "authorization"] {
            assert!(
                deciding("credential").iter().any(|deciding| deciding == name),
                "{name} can be taken away"
            );
        }
        assert!(credentials.headers().iter().all(|name| deciding("credential").contains(name)));
        assert!(deciding("header:x-user").contains(&HeaderName::from_static("x-user")));
    }
}
