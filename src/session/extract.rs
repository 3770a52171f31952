use http::{HeaderMap, HeaderName, header::HeaderValue, request};

use super::{InvalidSessionId, SessionId};

/// Where the id is read by default, and where every response of a session says it.
pub(crate) const X_SESSION_ID: HeaderName = HeaderName::from_static("x-session-id");

/// Finds the session id of a request.
///
/// Sources are asked in the order in which the layer was given them; the first that yields an id wins. Any
/// closure over the request's head is a source:
///
/// ```
/// use tower_session_memory::session::{InvalidSessionId, SessionId};
///
/// let by_query = |parts: &http::request::Parts| -> Result<Option<SessionId>, InvalidSessionId> {
///     let query = parts.uri.query().unwrap_or("");
///     query.split('&').find_map(|pair| pair.strip_prefix("session=")).map(str::parse).transpose()
/// };
/// # fn source(_: impl tower_session_memory::session::ExtractSession) {}
/// # source(by_query);
/// ```
///
/// Ids and keys that a middleware puts into the request's extensions (a [`SessionId`] or a
/// [`SessionKey`](super::SessionKey)) come before every source: only code inside the process can set them.
pub trait ExtractSession: Send + Sync + 'static {
    /// The id that the request names, or `None` if this source has none.
    ///
    /// # Errors
    ///
    /// [`InvalidSessionId`] when the request names a session in a way that must not be guessed at; the client
    /// is answered 400.
    fn extract(&self, parts: &request::Parts) -> Result<Option<SessionId>, InvalidSessionId>;

    /// Removes what carried the id, before the request is forwarded. Default: nothing.
    fn consume(&self, headers: &mut HeaderMap) {
        let _ = headers;
    }

    /// Whether a browser adds the id by itself, as it does with cookies. Such a session is only accepted
    /// with `content-type: application/json` and not from another site. Default: `false`.
    fn is_ambient(&self) -> bool {
        false
    }

    /// Hands a newly issued id to the client, beside the `x-session-id` header. Default: nothing.
    fn grant(&self, id: &SessionId, headers: &mut HeaderMap) {
        let _ = (id, headers);
    }
}

impl<F> ExtractSession for F
where
    F: Fn(&request::Parts) -> Result<Option<SessionId>, InvalidSessionId> + Send + Sync + 'static,
{
    fn extract(&self, parts: &request::Parts) -> Result<Option<SessionId>, InvalidSessionId> {
        self(parts)
    }
}

/// The session id in a request header.
///
/// The default is `x-session-id`. The same header twice with different values is refused. The header is
/// removed before the request is forwarded.
#[derive(Debug, Clone)]
pub struct Header(HeaderName);

impl Header {
    /// The id stands in this header.
    #[must_use]
    pub fn new(name: HeaderName) -> Self {
        Self(name)
    }
}

impl Default for Header {
    fn default() -> Self {
        Self(X_SESSION_ID)
    }
}

impl ExtractSession for Header {
    fn extract(&self, parts: &request::Parts) -> Result<Option<SessionId>, InvalidSessionId> {
        single(&parts.headers, &self.0)?.map(|value| SessionId::from_bytes(value.as_bytes())).transpose()
    }

    fn consume(&self, headers: &mut HeaderMap) {
        headers.remove(&self.0);
    }
}

/// The header's value; an error if it is there with two.
fn single<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a HeaderValue>, InvalidSessionId> {
    let mut values = headers.get_all(name).iter();
    let Some(first) = values.next() else { return Ok(None) };
    if values.all(|value| value == first) { Ok(Some(first)) } else { Err(InvalidSessionId::Ambiguous) }
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn parts(headers: &[(&'static str, &[u8])]) -> request::Parts {
        let mut request = http::Request::new(());
        for (name, value) in headers {
            request.headers_mut().append(*name, HeaderValue::from_bytes(value).expect("a header value"));
        }
        request.into_parts().0
    }

    #[test]
    fn an_id_that_is_no_id_is_refused_instead_of_repaired() {
        let source = Header::default();
        let long = [b'a'; 129];
        for (value, expected) in [
            (&b""[..], InvalidSessionId::Empty),
            (&long, InvalidSessionId::TooLong(129)),
            (b"two words", InvalidSessionId::InvalidByte),
            (b"caf\xc3\xa9", InvalidSessionId::InvalidByte),
            (b"tab\there", InvalidSessionId::InvalidByte),
        ] {
            assert_eq!(source.extract(&parts(&[("x-session-id", value)])), Err(expected), "{value:?}");
        }
        let longest = [b'~'; 128];
        assert!(source.extract(&parts(&[("x-session-id", &longest)])).is_ok_and(|id| id.is_some()));
    }

    #[test]
    fn two_different_ids_in_one_request_are_never_guessed_between() {
        let source = Header::default();
        let twice = parts(&[("x-session-id", b"a"), ("x-session-id", b"b")]);
        assert_eq!(source.extract(&twice), Err(InvalidSessionId::Ambiguous));
        let same = parts(&[("x-session-id", b"a"), ("x-session-id", b"a")]);
        assert_eq!(
            source.extract(&same).map(|id| id.map(|id| id.as_str().to_owned())),
            Ok(Some("a".to_owned()))
        );
    }
}
