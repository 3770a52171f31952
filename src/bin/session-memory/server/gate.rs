//! The gate: refuses malformed requests before any other part reads them, and removes hop-by-hop headers.
//!
//! Stricter than hyper where a lenient reading lets one party on the way see another request than the next
//! (request smuggling).

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version, header, uri::Authority,
};

use crate::traffic::{Refusal, Upgrade, named_in_connection, strip_hop_by_hop};

/// Rules for requests.
pub(crate) struct Gate {
    /// Ends of the paths that have a memory, which take no upgrades.
    pub(crate) suffixes: Vec<String>,
    /// The headers that decide to which session a request belongs, and what is done with it.
    pub(crate) deciding: Vec<HeaderName>,
}

impl Gate {
    /// Checks a request, removes what must not pass, and returns the change of protocol that it asks for.
    pub(crate) fn admit<B>(
        &self,
        request: &mut Request<B>,
        ambiguous: bool,
    ) -> Result<Option<Upgrade>, Box<Refusal>> {
        let refuse = |status, message: &str| Err(Box::new(Refusal::invalid(status, message)));
        if request.method() == Method::CONNECT {
            return refuse(StatusCode::METHOD_NOT_ALLOWED, "CONNECT is not supported");
        }
        if ambiguous {
            return refuse(
                StatusCode::BAD_REQUEST,
                "content-length and transfer-encoding in one request are not accepted",
            );
        }
        if let Err(message) = check_target(request).and_then(|()| check_framing(request.headers())) {
            return refuse(StatusCode::BAD_REQUEST, message);
        }
        // Without such a header the request would belong to another caller or session.
        let named = named_in_connection(request.headers());
        if let Some(name) = named.iter().find(|name| self.deciding.contains(name)) {
            return refuse(StatusCode::BAD_REQUEST, &format!("the connection header must not name {name}"));
        }
        if let Err(message) = settle_host(request) {
            return refuse(StatusCode::BAD_REQUEST, message);
        }
        if request.headers().get_all(header::EXPECT).iter().any(|value| !is_continue(value)) {
            return refuse(StatusCode::EXPECTATION_FAILED, "only the expectation 100-continue is supported");
        }
        let upgrade = self.take_upgrade(request)?;
        // hyper answers the expectation when the body is read.
        request.headers_mut().remove(header::EXPECT);
        strip_hop_by_hop(request.headers_mut());
        Ok(upgrade)
    }

    /// Removes an upgrade from the headers; a path with a memory takes none.
    fn take_upgrade<B>(&self, request: &mut Request<B>) -> Result<Option<Upgrade>, Box<Refusal>> {
        let Some(upgrade) = Upgrade::take(request) else { return Ok(None) };
        let path = request.uri().path();
        if self.suffixes.iter().any(|suffix| path.ends_with(suffix)) {
            let message = "a request with a memory cannot upgrade its connection";
            return Err(Box::new(Refusal::invalid(StatusCode::BAD_REQUEST, message)));
        }
        Ok(Some(upgrade))
    }
}

/// The origin form is the only one: a request cannot name another server.
fn check_target<B>(request: &Request<B>) -> Result<(), &'static str> {
    let uri = request.uri();
    if request.version() < Version::HTTP_2 && (uri.scheme().is_some() || uri.authority().is_some()) {
        return Err("the request target must be a path: this is no forward proxy");
    }
    if uri.path().starts_with('/') { Ok(()) } else { Err("the request target must be a path") }
}

fn check_framing(headers: &HeaderMap) -> Result<(), &'static str> {
    let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (encodings.next(), encodings.next()) {
        (None, _) => Ok(()),
        (Some(only), None) if only.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err("no transfer-encoding but chunked is accepted"),
    }
}

/// Exactly one host: in the header, or, in HTTP/2, in the target, from where it is copied to the header.
fn settle_host<B>(request: &mut Request<B>) -> Result<(), &'static str> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (host, more) = (hosts.next(), hosts.next());
    if more.is_some() {
        return Err("there is more than one host header");
    }
    match (host, request.uri().authority()) {
        (Some(host), None) if Authority::try_from(host.as_bytes()).is_err() => {
            Err("the host header holds no host")
        }
        (Some(host), Some(target)) if !host.as_bytes().eq_ignore_ascii_case(target.as_str().as_bytes()) => {
            Err("the host header and the request target differ")
        }
        (Some(_), _) => Ok(()),
        (None, Some(target)) => {
            let host =
                HeaderValue::from_str(target.as_str()).map_err(|_| "the request target holds no host")?;
            request.headers_mut().insert(header::HOST, host);
            Ok(())
        }
        (None, None) if request.version() == Version::HTTP_10 => Ok(()),
        (None, None) => Err("there is no host header"),
    }
}

fn is_continue(value: &HeaderValue) -> bool {
    value.as_bytes().eq_ignore_ascii_case(b"100-continue")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn verdict(change: impl FnOnce(http::request::Builder) -> http::request::Builder) -> Option<StatusCode> {
        let gate = Gate {
            suffixes: vec!["/chat/completions".to_owned()],
            deciding: vec![header::AUTHORIZATION, HeaderName::from_static("session-memory")],
        };
        let mut request =
            change(Request::builder()).body(()).unwrap_or_else(|error| panic!("no request: {error}"));
        gate.admit(&mut request, false).err().map(|refusal| refusal.status)
    }

    #[test]
    fn a_request_names_one_host_and_a_path() {
        let bad = Some(StatusCode::BAD_REQUEST);
        assert_eq!(verdict(|r| r.uri("/a").header("host", "a:1")), None);
        assert_eq!(verdict(|r| r.uri("/a")), bad, "no host");
        assert_eq!(verdict(|r| r.uri("/a").header("host", "a").header("host", "a")), bad, "two hosts");
        assert_eq!(verdict(|r| r.uri("/a").header("host", "a b")), bad, "not a host");
        assert_eq!(verdict(|r| r.uri("http://other/a").header("host", "other")), bad, "another server");
        assert_eq!(verdict(|r| r.uri("/a").version(Version::HTTP_10)), None);
        assert_eq!(verdict(|r| r.uri("http://a/").version(Version::HTTP_2)), None);
        let differ = verdict(|r| r.uri("http://a/").version(Version::HTTP_2).header("host", "b"));
        assert_eq!(differ, bad, "two hosts in HTTP/2");
    }

    #[test]
    fn strange_framing_and_expectations_are_refused() {
        let host = |r: http::request::Builder| r.uri("/a").header("host", "a");
        let bad = Some(StatusCode::BAD_REQUEST);
        assert_eq!(verdict(|r| host(r).header("transfer-encoding", "chunked")), None);
        assert_eq!(verdict(|r| host(r).header("transfer-encoding", "identity, chunked")), bad);
        let twice =
            verdict(|r| host(r).header("transfer-encoding", "x").header("transfer-encoding", "chunked"));
        assert_eq!(twice, bad);
        assert_eq!(verdict(|r| host(r).header("expect", "magic")), Some(StatusCode::EXPECTATION_FAILED));
        assert_eq!(verdict(|r| host(r).method("CONNECT")), Some(StatusCode::METHOD_NOT_ALLOWED));
    }

    #[test]
    fn a_header_that_decides_whose_session_it_is_cannot_be_taken_away_on_the_way() {
        let named = |name: &str| verdict(|r| r.uri("/a").header("host", "a").header("connection", name));
        let bad = Some(StatusCode::BAD_REQUEST);
        assert_eq!(named("close, Authorization"), bad);
        assert_eq!(named("Session-Memory"), bad);
        assert_eq!(named("close, x-other"), None);
    }

    #[test]
    fn an_upgrade_is_refused_where_there_is_a_memory() {
        let upgrade = |r: http::request::Builder, path: &str, to: &str| {
            r.uri(path).header("host", "a").header("connection", "upgrade").header("upgrade", to)
        };
        let bad = Some(StatusCode::BAD_REQUEST);
        assert_eq!(verdict(|r| upgrade(r, "/v1/chat/completions", "websocket")), bad);
        assert_eq!(verdict(|r| upgrade(r, "/v1/realtime", "websocket")), None);
        assert_eq!(verdict(|r| upgrade(r, "/v1/chat/completions", "h2c")), None, "an offer that is ignored");
    }
}
