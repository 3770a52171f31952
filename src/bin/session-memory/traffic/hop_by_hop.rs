//! Hop-by-hop headers (RFC 9110, section 7.6.1), which belong to one connection and never pass to the next.
//!
//! A header that `Connection` names is hop-by-hop, too. The gate refuses a request that names a header there
//! which decides on its session; all others are removed here, from requests and replies alike.

use http::{HeaderMap, HeaderName, HeaderValue, header};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Whether a header is hop-by-hop although `Connection` does not name it.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::TE,
        header::UPGRADE,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
    ]
    .contains(name)
}

/// Removes the hop-by-hop headers and those that `Connection` names.
///
/// `te: trailers` stays, since trailers pass through the proxy; any other `TE` goes.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // One pass over the names is cheaper than one look-up for each hop-by-hop header.
    let found: Vec<HeaderName> = headers.keys().filter(|name| is_hop_by_hop(name)).cloned().collect();
    if found.is_empty() {
        return;
    }
    let trailers = headers.get_all(header::TE).iter().any(accepts_trailers);
    for name in named_in_connection(headers).into_iter().chain(found) {
        headers.remove(name);
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// Whether a list header contains this token.
pub(crate) fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    tokens_of(headers, name).any(|found| found.eq_ignore_ascii_case(token))
}

/// The tokens of a list header.
pub(crate) fn tokens_of(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    headers.get_all(name).into_iter().flat_map(tokens)
}

/// The headers that `Connection` names.
pub(crate) fn named_in_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    tokens_of(headers, header::CONNECTION).filter_map(|token| token.parse().ok()).collect()
}

fn accepts_trailers(value: &HeaderValue) -> bool {
    tokens(value).any(|token| {
        let name = token.split(';').next().unwrap_or_default().trim();
        name.eq_ignore_ascii_case("trailers")
    })
}

fn tokens(value: &HeaderValue) -> impl Iterator<Item = &str> {
    value.to_str().unwrap_or_default().split(',').map(str::trim).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn a_header_named_in_connection_does_not_pass() {
        let mut headers = headers(&[
            ("connection", "close, X-Secret-Hop"),
            ("x-secret-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-authorization", "Basic x"),
            ("accept", "*/*"),
        ]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers.len(), 1, "left: {headers:?}");
        assert!(headers.contains_key("accept"));
    }

    #[test]
    fn of_te_only_trailers_passes() {
        let mut kept = headers(&[("connection", "te"), ("te", "gzip, trailers;q=0.5")]);
        strip_hop_by_hop(&mut kept);
        assert_eq!(kept.get("te").map(HeaderValue::as_bytes), Some(&b"trailers"[..]));
        let mut gone = headers(&[("te", "gzip")]);
        strip_hop_by_hop(&mut gone);
        assert!(gone.is_empty());
    }
}
