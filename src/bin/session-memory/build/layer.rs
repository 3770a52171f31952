//! The memory layer out of settings: each setting of the library is set here, and nowhere else.

use std::{sync::Arc, time::Duration};

use http::HeaderValue;
use secrecy::ExposeSecret;
use tower_session_memory::{
    AppendQueue, Limits, SessionMemoryLayer, Window,
    protocol::{Protocol, openai_chat::OpenAiChat},
    session::{Cookie, ExtractSession, Header, PrincipalPolicy},
    store::DynHistoryStore,
};

use crate::{
    error::BoxError,
    settings::{Config, PrincipalFrom, Secrets, Settings},
};

/// The layer around each worker's forwarding service.
///
/// # Errors
///
/// When a setting is refused.
pub(crate) fn memory(
    config: &Config,
    store: Arc<dyn DynHistoryStore>,
) -> Result<SessionMemoryLayer, BoxError> {
    let settings = &config.settings;
    let origins = settings.trusted_origins.iter().map(|origin| HeaderValue::from_str(&origin.0));
    let paths = settings.paths.iter().map(|suffix| &suffix.0);
    let protocol = OpenAiChat::new()
        .with_path_suffixes(paths)
        .with_accept_done_without_finish_reason(settings.accept_done_without_finish_reason);
    let memory = SessionMemoryLayer::from_arc(store)
        .with_protocols([Arc::new(protocol) as Arc<dyn Protocol>])
        .with_namespace(settings.namespace.as_str())
        .on_missing_session(settings.missing_session)
        .with_principal(principal(settings, &config.secrets))
        .with_trusted_origins(origins.collect::<Result<Vec<_>, _>>()?)
        .with_forwarded_session_id(settings.forward_session_id.clone())
        .with_instructions(settings.instructions)
        .with_window(window(settings))
        .with_limits(limits(settings)?)
        .with_load_timeout(settings.load_timeout)
        .with_commit_wait(settings.commit_wait)
        .with_append_queue(append_queue(settings)?)
        .on_load_error(settings.on_load_error)
        .on_append_error(settings.on_append_error)
        .on_disconnect(settings.on_disconnect);
    Ok(with_sources(memory, config))
}

/// The sources of a session id: headers first, in their order, then the cookie.
fn with_sources(memory: SessionMemoryLayer, config: &Config) -> SessionMemoryLayer {
    let headers = config.settings.session_header.iter().cloned().map(Header::new);
    let headers = headers.map(|header| Arc::new(header) as Arc<dyn ExtractSession>);
    let cookie = cookie(config).map(|cookie| Arc::new(cookie) as Arc<dyn ExtractSession>);
    memory.with_session_sources(headers.chain(cookie))
}

fn cookie(config: &Config) -> Option<Cookie> {
    let name = config.settings.session_cookie.as_deref()?;
    if config.secrets.cookie.is_empty() {
        return Some(Cookie::new(name));
    }
    let cookie = Cookie::signed(name, config.secrets.cookie.iter().map(|key| key.expose_secret().as_bytes()));
    let cookie = match config.settings.session_ttl {
        Some(ttl) => cookie.with_max_age(ttl),
        None => cookie,
    };
    Some(match config.settings.cookie_secure {
        true => cookie,
        false => cookie.danger_without_secure(),
    })
}

/// The policy by which a request's principal is found.
pub(crate) fn principal(settings: &Settings, secrets: &Secrets) -> PrincipalPolicy {
    match (&settings.principal, &secrets.principal) {
        (PrincipalFrom::Credential, None) => PrincipalPolicy::credential(),
        (PrincipalFrom::Credential, Some(secret)) => {
            PrincipalPolicy::credential_with_secret(secret.expose_secret().as_bytes())
        }
        (PrincipalFrom::Header(name), _) => PrincipalPolicy::header(name.clone()),
        (PrincipalFrom::None, _) => PrincipalPolicy::danger_shared(),
    }
}

fn window(settings: &Settings) -> Window {
    let bytes = settings
        .window_bytes
        .map_or(Window::UNBOUNDED.bytes, |bytes| usize::try_from(bytes.as_u64()).unwrap_or(usize::MAX));
    Window::UNBOUNDED.with_turns(settings.window_turns.unwrap_or(Window::UNBOUNDED.turns)).with_bytes(bytes)
}

fn limits(settings: &Settings) -> Result<Limits, BoxError> {
    let limits = Limits::default()
        .with_max_request_body(settings.max_request_body.as_u64().try_into()?)
        .with_max_buffered(settings.max_buffered.as_u64().try_into()?)
        .with_max_reply(settings.max_reply.as_u64().try_into()?)
        .with_max_event(settings.max_event.as_u64().try_into()?)
        .with_max_history(settings.max_history.as_u64().try_into()?);
    Ok(limits
        .with_body_read_timeout(settings.body_read_timeout.unwrap_or(Duration::MAX))
        .with_body_deadline(settings.body_deadline.unwrap_or(Duration::MAX)))
}

fn append_queue(settings: &Settings) -> Result<AppendQueue, BoxError> {
    Ok(AppendQueue::default()
        .with_turns(settings.append_queue_turns)
        .with_bytes(settings.append_queue_bytes.as_u64().try_into()?)
        .with_attempt(settings.append_attempt)
        .with_retry(settings.append_retry))
}
