//! The URL of a request to the upstream: its address, its path prefix, and the request's own path and query.

use http::{
    HeaderValue, Uri,
    header::InvalidHeaderValue,
    uri::{Authority, InvalidUri, PathAndQuery, Scheme},
};

use crate::error::BoxError;

/// The upstream's base URL, taken apart.
pub(crate) struct Target {
    scheme: Scheme,
    authority: Authority,
    /// Without a slash at its end.
    prefix: String,
    /// The `host` header, set where only HTTP/1.1 is spoken.
    pub(crate) host: Option<HeaderValue>,
}

impl Target {
    /// # Errors
    ///
    /// When the URL has no scheme or no host.
    pub(crate) fn new(base: &Uri) -> Result<Self, BoxError> {
        let parts = base.clone().into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err("the upstream's URL has no scheme or no host".into());
        };
        let host = (scheme == Scheme::HTTP).then(|| host(&authority)).transpose()?;
        Ok(Self { scheme, authority, prefix: base.path().trim_end_matches('/').to_owned(), host })
    }

    /// Whether the upstream is asked without TLS.
    pub(crate) fn is_plain(&self) -> bool {
        self.scheme == Scheme::HTTP
    }

    /// The prefix, then the path and query of the request, each byte for byte.
    pub(crate) fn path(&self, request: &Uri) -> Result<PathAndQuery, InvalidUri> {
        match request.path_and_query() {
            Some(path) if self.prefix.is_empty() => Ok(path.clone()),
            path => self.prefixed(path.map_or("/", PathAndQuery::as_str)),
        }
    }

    /// The URL of this path at the upstream.
    pub(crate) fn url(&self, path: PathAndQuery) -> Result<Uri, BoxError> {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path);
        Ok(Uri::from_parts(parts)?)
    }

    fn prefixed(&self, path: &str) -> Result<PathAndQuery, InvalidUri> {
        PathAndQuery::try_from(format!("{}{path}", self.prefix))
    }
}

/// The host, and its port unless that is 80.
fn host(authority: &Authority) -> Result<HeaderValue, InvalidHeaderValue> {
    match authority.port_u16().filter(|port| *port != 80) {
        Some(port) => HeaderValue::try_from(format!("{}:{port}", authority.host())),
        None => HeaderValue::from_str(authority.host()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn joined(base: &'static str, request: &'static str) -> String {
        let target = Target::new(&Uri::from_static(base)).unwrap_or_else(|error| panic!("{error}"));
        let path = target.path(&Uri::from_static(request)).unwrap_or_else(|error| panic!("{error}"));
        target.url(path).map(|uri| uri.to_string()).unwrap_or_default()
    }

    #[test]
    fn the_prefix_stands_before_the_path_and_the_query_stays() {
        assert_eq!(joined("http://h:1", "/v1/x?a=b&c"), "http://h:1/v1/x?a=b&c");
        assert_eq!(joined("http://h/", "/"), "http://h/");
        assert_eq!(joined("https://h/api", "/v1/x?a"), "https://h/api/v1/x?a");
        assert_eq!(joined("https://h/api/", "/v1"), "https://h/api/v1");
        assert_eq!(joined("http://h", "http://client/v1?q"), "http://h/v1?q");
        assert_eq!(
            joined("http://h", "/a%2Fb/../c//d"),
            "http://h/a%2Fb/../c//d",
            "a path is passed as it is"
        );
    }
}
