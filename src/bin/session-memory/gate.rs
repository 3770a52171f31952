//! The gate: what is refused before anything looks at a request, and what is taken off it.
//!
//! Stricter than hyper where being lenient lets one party on the way see another request than the next
//! (request smuggling).

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version, header, uri::Authority,
};

use crate::{
    headers::{named_in_connection, strip_hop_by_hop},
    reply::Refusal,
    upgrade::Upgrade,
};

/// Lets a request in, or says why not.
pub(crate) struct Gate {
    /// The ends of the paths that have a memory: they take no upgrades.
    pub(crate) suffixes: Vec<String>,
    /// The headers that decide whose session a request belongs to, and what is done with it.
    pub(crate) deciding: Vec<HeaderName>,
}

impl Gate {
    /// Checks a request and takes off it what must not pass.
    pub(crate) fn admit<B>(&self, request: &mut Request<B>, ambiguous: bool) -> Result<(), Box<Refusal>> {
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
        // They would be gone before anybody read them: the request would be another one, of another caller.
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
        self.take_upgrade(request)?;
        // The expectation was for us: hyper asks for the body when somebody reads it.
        request.headers_mut().remove(header::EXPECT);
        strip_hop_by_hop(request.headers_mut());
        Ok(())
    }

    /// Moves an upgrade from the headers to the extensions, where the forwarding end finds it.
    fn take_upgrade<B>(&self, request: &mut Request<B>) -> Result<(), Box<Refusal>> {
        let Some(upgrade) = Upgrade::take(request) else { return Ok(()) };
        let path = request.uri().path();
        if self.suffixes.iter().any(|suffix| path.ends_with(suffix)) {
            let message = "a request with a memory cannot upgrade its connection";
            return Err(Box::new(Refusal::invalid(StatusCode::BAD_REQUEST, message)));
        }
        request.extensions_mut().insert(upgrade);
        Ok(())
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
        (Some(host), None) if !is_host(host.as_bytes()) => Err("the host header holds no host"),
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

/// Whether a header names a host, and perhaps a port.
fn is_host(value: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-.".contains(byte);
    // What nearly every host looks like is told without a copy.
    let (name, port) = match memchr::memchr(b':', value) {
        Some(colon) => (&value[..colon], &value[colon + 1..]),
        None => (value, &b"80"[..]),
    };
    let is_port = (1..=5).contains(&port.len()) && port.iter().all(u8::is_ascii_digit);
    (!name.is_empty() && name.iter().all(is_plain) && is_port) || Authority::try_from(value).is_ok()
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
    fn the_short_way_takes_no_host_that_is_none() {
        let hosts =
            ["a", "a.b-c", "127.0.0.1:80", "a:65535", "a:65536", "a:99999", "a:", ":80", "", "a:b", "a:1:2"];
        for host in
            hosts.into_iter().chain(["[::1]:80", "u@a", "a_b", "a/b", "a b", "%41", "a:080", "-", "."])
        {
            assert_eq!(is_host(host.as_bytes()), Authority::try_from(host).is_ok(), "{host:?}");
        }
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
