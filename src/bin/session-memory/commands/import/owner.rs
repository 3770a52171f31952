//! Owner of the imported sessions: the principal that the proxy finds for their client.

use http::{HeaderName, HeaderValue, Request};
use secrecy::{ExposeSecret, SecretString};
use tower_session_memory::session::Principal;

use crate::{
    build,
    settings::{PrincipalFrom, Secrets, Settings},
};

/// Error of the owner. The owner's text may be a credential and is never shown.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum OwnerError {
    #[error(
        "whose do the sessions become? give --owner-file with the header that their client sends, such as \
         \"authorization: Bearer KEY\", or --anonymous for clients without one"
    )]
    Missing,
    #[error(
        "with principal = none the sessions become everybody's: give neither --owner-file nor --anonymous"
    )]
    Shared,
    #[error("--anonymous and an owner are both given; give one")]
    Both,
    #[error("the owner is not one header, NAME: VALUE, as the client sends it")]
    NoHeader,
    #[error("the header that the owner names decides nothing: principal = {0} does not look at it")]
    Undeciding(&'static str),
}

/// The principal of a client that sends this header, or none.
///
/// # Errors
///
/// [`OwnerError`].
pub(super) fn principal(
    settings: &Settings,
    secrets: &Secrets,
    header: Option<&SecretString>,
    anonymous: bool,
) -> Result<Principal, OwnerError> {
    let (mut parts, ()) = Request::new(()).into_parts();
    let policy = build::principal(settings, secrets);
    match (&settings.principal, header, anonymous) {
        (PrincipalFrom::None, None, false) => return Ok(policy.principal(&parts)),
        (PrincipalFrom::None, ..) => return Err(OwnerError::Shared),
        (_, None, false) => return Err(OwnerError::Missing),
        (_, Some(_), true) => return Err(OwnerError::Both),
        (_, None, true) => return Ok(Principal::anonymous()),
        (_, Some(header), false) => {
            let (name, value) = read(header.expose_secret()).ok_or(OwnerError::NoHeader)?;
            parts.headers.insert(name, value);
        }
    }
    let principal = policy.principal(&parts);
    match settings.principal {
        _ if principal != Principal::anonymous() => Ok(principal),
        PrincipalFrom::Header(_) => Err(OwnerError::Undeciding("header:NAME")),
        _ => Err(OwnerError::Undeciding("credential")),
    }
}

/// One header, as a request has it, without white space around the value.
fn read(line: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.trim().split_once(':')?;
    let value = HeaderValue::from_bytes(value.trim().as_bytes()).ok().filter(|value| !value.is_empty())?;
    Some((name.trim().parse().ok()?, value))
}
