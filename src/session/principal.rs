use std::{fmt, sync::Arc};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, request};
use sha2::{Digest, Sha256};

/// Caller of a request: the owner of its sessions.
///
/// By default the layer derives it from the request's credential; see [`PrincipalPolicy`]. An
/// authentication middleware outside the layer can insert its own into the request's extensions, which then
/// counts instead:
///
/// ```
/// use tower_session_memory::session::Principal;
///
/// # let mut request = http::Request::new(());
/// request.extensions_mut().insert(Principal::new("user-42"));
/// ```
///
/// `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Principal(Arc<str>);

impl Principal {
    /// A principal with a name of your own: a user id, a tenant.
    ///
    /// The names `anonymous`, `shared` and `<header>:<digest>` are those that [`PrincipalPolicy`] gives. Where
    /// callers choose their names, and some requests come without a principal in their extensions, put a prefix
    /// before them.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The principal of requests that carry no credential. All of them share it.
    #[must_use]
    pub fn anonymous() -> Self {
        Self::new("anonymous")
    }

    /// The name under which stores keep it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Principal").finish_non_exhaustive()
    }
}

/// How the principal of a request is found, unless a middleware has put one into its extensions.
///
/// The default is [`PrincipalPolicy::credential`] without a secret.
#[derive(Clone, Debug)]
pub struct PrincipalPolicy(Policy);

#[derive(Clone)]
enum Policy {
    Credential(Option<Arc<[u8]>>),
    Header(HeaderName),
    Shared,
}

impl PrincipalPolicy {
    /// A digest (SHA-256) of the credential: of `authorization`, `x-api-key` or `api-key`, whichever comes
    /// first in this order. The credential itself is neither stored nor logged.
    ///
    /// A caller whose key is rotated is another principal and starts with an empty history. A request without
    /// a credential belongs to [`Principal::anonymous`].
    #[must_use]
    pub fn credential() -> Self {
        Self(Policy::Credential(None))
    }

    /// As [`credential`](Self::credential), keyed with a secret (HMAC-SHA-256), so that a leaked store does
    /// not let anyone test guessed credentials against it. All replicas must share the secret; at least 32
    /// random bytes are advised.
    #[must_use]
    pub fn credential_with_secret(secret: impl Into<Arc<[u8]>>) -> Self {
        Self(Policy::Credential(Some(secret.into())))
    }

    /// The value of this header, as a gateway in front sets it after authentication. Requests without it are
    /// anonymous.
    ///
    /// Only safe where clients cannot set the header themselves.
    #[must_use]
    pub fn header(name: HeaderName) -> Self {
        Self(Policy::Header(name))
    }

    /// One principal for all callers: each caller that knows a session id can use the session.
    #[must_use]
    pub fn danger_shared() -> Self {
        Self(Policy::Shared)
    }

    /// Request headers that decide on the principal. A proxy before the layer must neither drop nor change them.
    #[must_use]
    pub fn headers(&self) -> &[HeaderName] {
        match &self.0 {
            Policy::Credential(_) => &CREDENTIALS,
            Policy::Header(name) => std::slice::from_ref(name),
            Policy::Shared => &[],
        }
    }

    /// The principal of a request with this head, as the layer finds it: for programs that must know whose a
    /// session is without serving a request.
    #[must_use]
    pub fn principal(&self, parts: &request::Parts) -> Principal {
        if let Some(principal) = parts.extensions.get::<Principal>() {
            return principal.clone();
        }
        match &self.0 {
            Policy::Credential(secret) => credential(&parts.headers)
                .map_or_else(Principal::anonymous, |name| digest(secret.as_deref(), name, &parts.headers)),
            Policy::Header(name) if parts.headers.contains_key(name) => digest(None, name, &parts.headers),
            Policy::Header(_) => Principal::anonymous(),
            Policy::Shared => Principal::new("shared"),
        }
    }
}

impl Default for PrincipalPolicy {
    fn default() -> Self {
        Self::credential()
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Credential(None) => "Credential",
            Self::Credential(Some(_)) => "CredentialWithSecret",
            Self::Header(_) => "Header",
            Self::Shared => "Shared",
        })
    }
}

/// The headers that may carry a credential; the first one present counts.
static CREDENTIALS: [HeaderName; 3] =
    [http::header::AUTHORIZATION, HeaderName::from_static("x-api-key"), HeaderName::from_static("api-key")];

fn credential(headers: &HeaderMap) -> Option<&'static HeaderName> {
    CREDENTIALS.iter().find(|name| headers.contains_key(*name))
}

/// Name and values are preceded by their length, so no two headers digest alike.
fn digest(secret: Option<&[u8]>, name: &HeaderName, headers: &HeaderMap) -> Principal {
    let values = headers.get_all(name);
    let parts = || std::iter::once(name.as_str().as_bytes()).chain(values.iter().map(|v| v.as_bytes()));
    let mut input = Vec::with_capacity(parts().map(|part| 8 + part.len()).sum());
    for part in parts() {
        input.extend_from_slice(&(part.len() as u64).to_be_bytes());
        input.extend_from_slice(part);
    }
    let digest: [u8; 32] = match secret.map(Hmac::<Sha256>::new_from_slice) {
        Some(Ok(mac)) => mac.chain_update(&input).finalize().into_bytes().into(),
        // HMAC takes a key of any length; the error type exists for other MACs.
        Some(Err(_)) | None => Sha256::digest(&input).into(),
    };
    let mut principal = String::with_capacity(name.as_str().len() + 1 + 43);
    principal.push_str(name.as_str());
    principal.push(':');
    BASE64_URL_SAFE_NO_PAD.encode_string(digest, &mut principal);
    Principal::new(principal)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn principal(policy: &PrincipalPolicy, headers: &[(&'static str, &'static str)]) -> Principal {
        let mut request = Request::new(());
        for (name, value) in headers {
            request.headers_mut().append(*name, http::HeaderValue::from_static(value));
        }
        policy.principal(&request.into_parts().0)
    }

    #[test]
    fn two_credentials_are_two_principals_and_neither_is_readable() {
        let policy = PrincipalPolicy::credential();
        let a = principal(&policy, &[("authorization", "Bearer sk-a")]);
        let b = principal(&policy, &[("authorization", "Bearer sk-b")]);
        let api_key = principal(&policy, &[("api-key", "Bearer sk-a")]);
        assert!(a != b && a != api_key, "different credentials must not share a principal");
        assert!(!a.as_str().contains("sk-a"), "the credential must not reach the store");
        assert_eq!(a, principal(&policy, &[("authorization", "Bearer sk-a"), ("api-key", "other")]));
        assert_eq!(principal(&policy, &[]), Principal::anonymous());
    }

    #[test]
    fn a_secret_changes_the_digest() {
        let plain = principal(&PrincipalPolicy::credential(), &[("authorization", "Bearer sk-a")]);
        let keyed = PrincipalPolicy::credential_with_secret(*b"0123456789abcdef");
        assert_ne!(plain, principal(&keyed, &[("authorization", "Bearer sk-a")]));
    }

    #[test]
    fn an_authenticated_principal_in_the_extensions_wins() {
        let mut request = Request::new(());
        request.headers_mut().insert("authorization", http::HeaderValue::from_static("Bearer x"));
        request.extensions_mut().insert(Principal::new("user-42"));
        assert_eq!(
            PrincipalPolicy::credential().principal(&request.into_parts().0),
            Principal::new("user-42")
        );
    }

    #[test]
    fn a_header_value_cannot_pose_as_another_kind_of_principal() {
        let policy = PrincipalPolicy::header(HeaderName::from_static("x-user"));
        assert_ne!(principal(&policy, &[("x-user", "anonymous")]), Principal::anonymous());
        assert_eq!(principal(&policy, &[]), Principal::anonymous());
    }
}
