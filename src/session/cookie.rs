use std::{fmt, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderValue, header, request};
use sha2::Sha256;

use super::{ExtractSession, InvalidSessionId, SessionId};

/// The session id in a cookie, plain or signed.
///
/// A plain cookie is one that your own service sets. A signed one can also be issued by the layer
/// ([`OnMissing::Issue`](crate::OnMissing::Issue)): `HttpOnly; Secure; SameSite=Lax; Path=/`, HMAC-SHA-256
/// over name and id. A signed cookie that does not verify counts as none; of several of the same name the one
/// that verifies counts.
///
/// Our cookie is removed before the request is forwarded; the others stay. Because browsers send cookies by
/// themselves, a session that is named by one is only accepted with `content-type: application/json` and not
/// from another site.
#[derive(Clone)]
pub struct Cookie {
    name: Arc<str>,
    signing: Option<Signing>,
}

#[derive(Clone)]
struct Signing {
    keys: Arc<[Box<[u8]>]>,
    max_age: Duration,
    secure: bool,
}

/// How long a browser keeps an issued cookie; as long as sessions live by default.
const MAX_AGE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

impl Cookie {
    /// A cookie that holds the id as it is.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), signing: None }
    }

    /// A cookie that holds the id and a signature.
    ///
    /// `keys` are shared by all replicas, at least 32 random bytes each. The first signs, all verify: to
    /// rotate, put a new one in front. A name with the prefix `__Host-` is advised.
    ///
    /// # Panics
    ///
    /// When `keys` is empty.
    #[must_use]
    pub fn signed<K: Into<Box<[u8]>>>(name: impl Into<Arc<str>>, keys: impl IntoIterator<Item = K>) -> Self {
        let keys: Arc<[Box<[u8]>]> = keys.into_iter().map(Into::into).collect();
        assert!(!keys.is_empty(), "a signed cookie needs at least one key");
        Self { name: name.into(), signing: Some(Signing { keys, max_age: MAX_AGE, secure: true }) }
    }

    /// How long a browser keeps an issued cookie. Default 30 days.
    #[must_use]
    pub fn with_max_age(mut self, max_age: Duration) -> Self {
        if let Some(signing) = &mut self.signing {
            signing.max_age = max_age;
        }
        self
    }

    /// Issues the cookie without `Secure`, so that clients send it over plain HTTP too. For tests and
    /// loopback.
    #[must_use]
    pub fn danger_without_secure(mut self) -> Self {
        if let Some(signing) = &mut self.signing {
            signing.secure = false;
        }
        self
    }

    fn values<'a>(&'a self, headers: &'a HeaderMap) -> impl Iterator<Item = &'a str> {
        headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(cookie::Cookie::split_parse)
            .filter_map(Result::ok)
            .filter(|cookie| cookie.name() == &*self.name)
            .filter_map(|cookie| cookie.value_raw())
    }
}

impl ExtractSession for Cookie {
    fn extract(&self, parts: &request::Parts) -> Result<Option<SessionId>, InvalidSessionId> {
        let mut found = None;
        for value in self.values(&parts.headers) {
            let id = match &self.signing {
                Some(signing) => signing.verify(&self.name, value),
                None => Some(SessionId::from_bytes(value.as_bytes())?),
            };
            match (&found, id) {
                (_, None) => {}
                (None, id) => found = id,
                (Some(first), Some(id)) if *first == id => {}
                (Some(_), Some(_)) => return Err(InvalidSessionId::Ambiguous),
            }
        }
        Ok(found)
    }

    fn consume(&self, headers: &mut HeaderMap) {
        if self.values(headers).next().is_none() {
            return;
        }
        let kept: Vec<_> =
            headers.get_all(header::COOKIE).iter().filter_map(|v| without(v, &self.name)).collect();
        headers.remove(header::COOKIE);
        for value in kept {
            headers.append(header::COOKIE, value);
        }
    }

    fn is_ambient(&self) -> bool {
        true
    }

    fn grant(&self, id: &SessionId, headers: &mut HeaderMap) {
        let Some(signing) = &self.signing else { return };
        let cookie = cookie::Cookie::build((&*self.name, signing.sign(&self.name, id)))
            .path("/")
            .http_only(true)
            .secure(signing.secure)
            .same_site(cookie::SameSite::Lax)
            .max_age(signing.max_age.try_into().unwrap_or(cookie::time::Duration::MAX));
        if let Ok(value) = HeaderValue::try_from(cookie.to_string()) {
            headers.append(header::SET_COOKIE, value);
        }
    }
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cookie")
            .field("name", &self.name)
            .field("signed", &self.signing.is_some())
            .finish_non_exhaustive()
    }
}

impl Signing {
    /// `<id>.<mac>`, both base64url: an id may hold bytes that a cookie value must not.
    fn sign(&self, name: &str, id: &SessionId) -> String {
        let mac = mac(&self.keys[0], name, id.as_str().as_bytes()).map(|mac| mac.finalize().into_bytes());
        format!(
            "{}.{}",
            BASE64_URL_SAFE_NO_PAD.encode(id.as_str()),
            BASE64_URL_SAFE_NO_PAD.encode(mac.as_deref().unwrap_or_default())
        )
    }

    fn verify(&self, name: &str, value: &str) -> Option<SessionId> {
        let (id, signature) = value.split_once('.')?;
        let id = BASE64_URL_SAFE_NO_PAD.decode(id).ok()?;
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?;
        self.keys
            .iter()
            .filter_map(|key| mac(key, name, &id))
            .any(|mac| mac.verify_slice(&signature).is_ok())
            .then(|| SessionId::from_bytes(&id).ok())?
    }
}

fn mac(key: &[u8], name: &str, id: &[u8]) -> Option<Hmac<Sha256>> {
    let mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    Some(mac.chain_update((name.len() as u64).to_be_bytes()).chain_update(name).chain_update(id))
}

/// The header without the cookies of this name, as it was sent otherwise; `None` if nothing is left.
fn without(value: &HeaderValue, name: &str) -> Option<HeaderValue> {
    let Ok(text) = value.to_str() else { return Some(value.clone()) };
    let kept: Vec<_> = text
        .split(';')
        .filter(|pair| pair.split_once('=').is_none_or(|(key, _)| key.trim() != name))
        .map(str::trim)
        .filter(|pair| !pair.is_empty())
        .collect();
    if kept.is_empty() { None } else { HeaderValue::try_from(kept.join("; ")).ok() }
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn parts(cookie: &str) -> request::Parts {
        let mut request = http::Request::new(());
        request.headers_mut().insert(header::COOKIE, HeaderValue::try_from(cookie).expect("a header value"));
        request.into_parts().0
    }

    fn granted(source: &Cookie, id: &str) -> String {
        let mut headers = HeaderMap::new();
        source.grant(&id.parse().expect("an id"), &mut headers);
        headers[header::SET_COOKIE].to_str().expect("text").to_owned()
    }

    #[test]
    fn an_issued_cookie_comes_back_as_the_same_session_and_is_hard_to_misuse() {
        let source = Cookie::signed("__Host-chat", [*b"0123456789abcdef0123456789abcdef"]);
        let set = granted(&source, "a;b=c");
        for attribute in ["HttpOnly", "Secure", "SameSite=Lax", "Path=/", "Max-Age=2592000"] {
            assert!(set.contains(attribute), "{set} lacks {attribute}");
        }
        let pair = set.split(';').next().expect("a pair");
        let id = source.extract(&parts(pair)).expect("valid").expect("found");
        assert_eq!(id.as_str(), "a;b=c");
    }

    #[test]
    fn a_planted_or_altered_cookie_is_no_session() {
        let source = Cookie::signed("chat", [*b"0123456789abcdef0123456789abcdef"]);
        let set = granted(&source, "mine");
        let value = set.split(';').next().and_then(|pair| pair.split_once('=')).expect("a pair").1.to_owned();
        let (id, mac) = value.split_once('.').expect("two parts");
        let other = BASE64_URL_SAFE_NO_PAD.encode("theirs");
        for forged in [format!("{other}.{mac}"), format!("{id}."), "theirs".to_owned(), format!("{id}.{id}")]
        {
            assert_eq!(source.extract(&parts(&format!("chat={forged}"))), Ok(None), "{forged}");
        }
        let planted = source.extract(&parts(&format!("chat=x.y; chat={value}"))).expect("valid");
        assert_eq!(planted.expect("the one that verifies").as_str(), "mine");
        let renamed = Cookie::signed("other", [*b"0123456789abcdef0123456789abcdef"]);
        assert_eq!(renamed.extract(&parts(&format!("other={value}"))), Ok(None), "the name is signed too");
    }

    #[test]
    fn a_rotated_key_still_verifies_and_no_longer_signs() {
        let old = Cookie::signed("chat", [*b"old-key-old-key-old-key-old-key-"]);
        let new = Cookie::signed(
            "chat",
            [*b"new-key-new-key-new-key-new-key-", *b"old-key-old-key-old-key-old-key-"],
        );
        let by_old = granted(&old, "a");
        let by_new = granted(&new, "a");
        assert!(new.extract(&parts(by_old.split(';').next().expect("a pair"))).expect("valid").is_some());
        assert!(old.extract(&parts(by_new.split(';').next().expect("a pair"))).expect("valid").is_none());
    }

    #[test]
    fn only_our_cookie_is_removed_before_forwarding() {
        let source = Cookie::new("chat");
        let mut parts = parts("theme=dark; chat=abc; lang=en");
        source.consume(&mut parts.headers);
        assert_eq!(parts.headers[header::COOKIE], "theme=dark; lang=en");
        let mut only_ours = self::parts("chat=abc");
        source.consume(&mut only_ours.headers);
        assert!(!only_ours.headers.contains_key(header::COOKIE));
    }

    #[test]
    fn two_plain_cookies_that_disagree_are_refused() {
        let source = Cookie::new("chat");
        assert_eq!(source.extract(&parts("chat=a; chat=b")), Err(InvalidSessionId::Ambiguous));
        assert_eq!(source.extract(&parts("chat=")), Err(InvalidSessionId::Empty));
    }
}
