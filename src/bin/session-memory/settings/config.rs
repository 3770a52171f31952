//! Settings and secrets, checked against each other.

use super::{
    place::UpstreamUrl,
    secrets::{ConfigError, Secrets},
    table::Settings,
};
use tower_session_memory::OnMissing;

/// Settings that fit together.
pub(crate) struct Config {
    pub(crate) upstream: UpstreamUrl,
    pub(crate) settings: Settings,
    pub(crate) secrets: Secrets,
}

impl Config {
    /// Checks settings against each other.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], when something is missing or two settings contradict each other.
    pub(crate) fn new(settings: Settings, secrets: Secrets) -> Result<Self, ConfigError> {
        let upstream = settings.upstream.clone().ok_or(ConfigError::NoUpstream)?;
        let contradiction = |text| Err(ConfigError::Contradiction(text));
        if settings.session_header.is_empty() && settings.session_cookie.is_none() {
            return contradiction(
                "session_header and session_cookie are both none: no request has a session",
            );
        }
        if !secrets.cookie.is_empty() && settings.session_cookie.is_none() {
            return contradiction("there is a cookie secret, but session_cookie is none");
        }
        let issues = settings.missing_session == OnMissing::Issue;
        if issues && settings.session_cookie.is_some() && secrets.cookie.is_empty() {
            return contradiction("missing_session = issue with a session_cookie needs a cookie secret");
        }
        secrets.fit(&settings)?;
        if settings.max_request_body.as_u64() > settings.max_buffered.as_u64() {
            return contradiction("max_request_body is larger than max_buffered");
        }
        if settings.max_event.as_u64() > settings.max_reply.as_u64() {
            return contradiction("max_event is larger than max_reply");
        }
        let admin = settings.admin.filter(|admin| admin.port() != 0).map(|admin| admin.to_string());
        if admin.as_ref() == Some(&settings.listen.0) {
            return contradiction("listen and admin are the same address");
        }
        if upstream.is_at(&settings.listen.0) {
            return contradiction("upstream and listen are the same address: the proxy would ask itself");
        }
        Ok(Self { upstream, settings, secrets })
    }
}
