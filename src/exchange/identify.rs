//! From a request's head to the session that it belongs to.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header, request};

use super::{decision::SESSION_MEMORY, rejection::Rejection};
use crate::{
    config::{Config, OnMissing},
    session::{ExtractSession, SessionId, SessionKey, X_SESSION_ID},
};

/// A request's session and what is to be done with it.
pub(crate) struct Identity {
    pub(crate) key: SessionKey,
    pub(crate) control: Control,
    /// The id is new: the response must name it to the client.
    pub(crate) issued: bool,
}

/// What the request's `session-memory` header asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Control {
    #[default]
    Default,
    /// As if we were not here.
    Off,
    /// The history is supplied; nothing is recorded.
    Read,
    /// Everything after the instructions is new.
    Append,
    /// Start again from the root.
    Reset,
}

/// The session that the request's head names; `None` if it names none.
pub(crate) fn in_head(config: &Config, parts: &request::Parts) -> Result<Option<Identity>, Rejection> {
    if let Some(key) = parts.extensions.get::<SessionKey>() {
        return Ok(Some(Identity { key: key.clone(), control: control(&parts.headers)?, issued: false }));
    }
    match find(config, parts)? {
        Some(id) => identity(config, parts, id, false).map(Some),
        None => Ok(None),
    }
}

/// The session that the request's body names; `None` if it names none and that is fine.
pub(crate) fn in_body(
    config: &Config,
    parts: &request::Parts,
    session: Option<&str>,
) -> Result<Option<Identity>, Rejection> {
    match session.filter(|id| !id.is_empty()) {
        Some(id) => {
            let id = SessionId::from_bytes(id.as_bytes()).map_err(Rejection::invalid_session_id)?;
            identity(config, parts, id, false).map(Some)
        }
        None => unnamed(config, parts),
    }
}

/// The session of a request that names none; `None` if that is fine.
pub(crate) fn unnamed(config: &Config, parts: &request::Parts) -> Result<Option<Identity>, Rejection> {
    match config.missing {
        OnMissing::Pass => Ok(None),
        OnMissing::Reject => Err(Rejection::missing_session_id()),
        OnMissing::Issue => {
            let id = SessionId::random().map_err(|_| Rejection::store_unavailable())?;
            identity(config, parts, id, true).map(Some)
        }
    }
}

fn identity(
    config: &Config,
    parts: &request::Parts,
    id: SessionId,
    issued: bool,
) -> Result<Identity, Rejection> {
    let principal = config.principal.principal(parts);
    let key = SessionKey::new(Arc::clone(&config.namespace), principal, id);
    Ok(Identity { key, control: control(&parts.headers)?, issued })
}

/// Removes what is ours from the head, before it is forwarded.
pub(crate) fn consume(config: &Config, identity: &Identity, headers: &mut HeaderMap) {
    config.sources.iter().for_each(|source| source.consume(headers));
    headers.remove(SESSION_MEMORY);
    if let Some(name) = &config.forwarded_id
        && let Ok(id) = HeaderValue::from_str(identity.key.id().as_str())
    {
        headers.insert(name.clone(), id);
    }
}

fn find(config: &Config, parts: &request::Parts) -> Result<Option<SessionId>, Rejection> {
    if let Some(id) = parts.extensions.get::<SessionId>() {
        return Ok(Some(id.clone()));
    }
    for source in &config.sources {
        if let Some(id) = source.extract(parts).map_err(Rejection::invalid_session_id)? {
            if source.is_ambient() {
                same_site(config, parts)?;
            }
            return Ok(Some(id));
        }
    }
    Ok(None)
}

pub(crate) fn control(headers: &HeaderMap) -> Result<Control, Rejection> {
    let mut values = headers.get_all(SESSION_MEMORY).iter();
    let Some(value) = values.next() else { return Ok(Control::Default) };
    let control = match value.as_bytes().trim_ascii() {
        b"off" => Control::Off,
        b"read" => Control::Read,
        b"append" => Control::Append,
        b"reset" => Control::Reset,
        _ => return Err(unknown_control()),
    };
    if values.all(|other| other == value) { Ok(control) } else { Err(unknown_control()) }
}

fn unknown_control() -> Rejection {
    Rejection::invalid_request("the header session-memory takes one of: off, read, append, reset")
        .with_param("session-memory")
}

/// A browser sends cookies by itself, so a page of another site could write into the session: the request
/// must be one that such a page cannot make (a JSON content type needs a CORS preflight) and must not say
/// that it comes from another site.
fn same_site(config: &Config, parts: &request::Parts) -> Result<(), Rejection> {
    let headers = &parts.headers;
    if !headers.get(header::CONTENT_TYPE).is_some_and(is_json) {
        return Err(Rejection::invalid_request(
            "a session named by a cookie is only accepted with content-type application/json",
        )
        .with_param("content-type"));
    }
    let origin = headers.get(header::ORIGIN);
    if origin.is_some_and(|origin| config.trusted_origins.contains(origin)) {
        return Ok(());
    }
    let cross_site = match headers.get("sec-fetch-site") {
        Some(site) => site == "cross-site",
        None => origin.is_some_and(|origin| !is_own_origin(origin, parts)),
    };
    if cross_site {
        return Err(Rejection::invalid_request(
            "a session named by a cookie is not accepted from another site; trusted_origins allows origins",
        )
        .with_param("origin"));
    }
    Ok(())
}

/// Whether this is the origin that the request was sent to: over HTTP/1 that is `host`, over HTTP/2 the URI's
/// authority.
fn is_own_origin(origin: &HeaderValue, parts: &request::Parts) -> bool {
    let origin = origin.as_bytes();
    let Some(origin) = origin.strip_prefix(b"https://").or_else(|| origin.strip_prefix(b"http://")) else {
        return false;
    };
    let host = parts.headers.get(header::HOST).map(HeaderValue::as_bytes);
    host.or(parts.uri.authority().map(|authority| authority.as_str().as_bytes()))
        .is_some_and(|own| own.eq_ignore_ascii_case(origin))
}

/// `application/json`, or a type with the suffix `+json`, whatever its parameters.
pub(crate) fn is_json(value: &HeaderValue) -> bool {
    let essence = essence(value);
    essence.eq_ignore_ascii_case(b"application/json")
        || (essence.len() > 5 && essence[essence.len() - 5..].eq_ignore_ascii_case(b"+json"))
}

/// A media type without its parameters.
pub(crate) fn essence(value: &HeaderValue) -> &[u8] {
    value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
}

impl Identity {
    /// Tells the client its session: always in `x-session-id`, a new one also the ways that sources have.
    pub(crate) fn tell(&self, sources: &[Arc<dyn ExtractSession>], headers: &mut HeaderMap) {
        if let Ok(id) = HeaderValue::from_str(self.key.id().as_str()) {
            headers.insert(X_SESSION_ID, id);
        }
        if self.issued {
            sources.iter().for_each(|source| source.grant(self.key.id(), headers));
        }
    }
}
