//! What goes upstream beside the body, what comes back beside the reply, and what may name a session.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tower::{Layer, util::BoxCloneSyncService};
use tower_session_memory::{RequestBody, SessionMemoryLayer, store::InMemoryStore};

use crate::layer::support::{JSON, ask, call, reply};

type Service = BoxCloneSyncService<Request<RequestBody<Full<Bytes>>>, Response<Full<Bytes>>, Infallible>;

/// A model that keeps the heads that it was sent, and answers with this one.
#[derive(Clone, Default)]
struct Model {
    answers_with: HeaderMap,
    status: StatusCode,
    seen: Arc<Mutex<Vec<(HeaderMap, usize)>>>,
}

impl Model {
    fn service(&self) -> Service {
        let model = self.clone();
        BoxCloneSyncService::new(tower::service_fn(move |request: Request<RequestBody<Full<Bytes>>>| {
            let model = model.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.expect("a body").to_bytes();
                model.seen.lock().unwrap().push((head.headers, body.len()));
                let mut response = Response::new(Full::from(reply("yes")));
                *response.status_mut() = model.status;
                response.headers_mut().insert("content-type", JSON.parse().unwrap());
                response.headers_mut().extend(model.answers_with);
                Ok(response)
            }
        }))
    }

    fn last_seen(&self) -> (HeaderMap, usize) {
        self.seen.lock().unwrap().last().expect("the model was asked").clone()
    }
}

fn with(mut request: Request<Full<Bytes>>, headers: &[(&'static str, &str)]) -> Request<Full<Bytes>> {
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    request
}

#[tokio::test]
async fn what_described_the_body_before_the_history_does_not_go_upstream() {
    let model = Model::default();
    let service = SessionMemoryLayer::new(InMemoryStore::new()).layer(model.service());
    for turn in ["first", "second"] {
        let described = [
            ("content-length", "58"),
            ("transfer-encoding", "chunked"),
            ("trailer", "x-checksum"),
            ("expect", "100-continue"),
            ("content-md5", "Q2hlY2sgSW50ZWdyaXR5IQ=="),
            ("digest", "sha-256=X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE="),
            ("content-digest", "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:"),
            ("repr-digest", "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:"),
            ("x-request-id", "kept"),
        ];
        let response = call(&service, with(ask("s", turn), &described)).await;
        response.into_body().collect().await.unwrap();
        let (headers, length) = model.last_seen();
        assert_eq!(headers["content-length"], length.to_string(), "{turn}");
        for (name, _) in &described[1..8] {
            assert!(!headers.contains_key(*name), "{turn}: {name} describes another body");
        }
        assert_eq!(headers["x-request-id"], "kept", "what does not describe the body is the client's");
    }
}

#[tokio::test]
async fn what_is_said_to_the_memory_does_not_go_upstream() {
    let model = Model::default();
    let service = SessionMemoryLayer::new(InMemoryStore::new()).layer(model.service());
    for control in ["read", "off"] {
        let request =
            with(ask("secret", "hi"), &[("session-memory", control), ("authorization", "Bearer x")]);
        call(&service, request).await.into_body().collect().await.unwrap();
        let (headers, _) = model.last_seen();
        assert!(
            !headers.contains_key("x-session-id") && !headers.contains_key("session-memory"),
            "{control}"
        );
        assert_eq!(headers["authorization"], "Bearer x", "the credential is the upstream's to check");
    }
}

#[tokio::test]
async fn the_head_of_a_reply_stays_the_upstreams() {
    let mut model = Model { status: StatusCode::ACCEPTED, ..Model::default() };
    for (name, value) in [("x-request-id", "req-1"), ("set-cookie", "a=1"), ("etag", "\"e\"")] {
        model.answers_with.append(name, value.parse().unwrap());
    }
    model.answers_with.append("set-cookie", "b=2".parse().unwrap());
    let layer = SessionMemoryLayer::new(InMemoryStore::new());
    let response = call(&layer.layer(model.service()), ask("s", "hi")).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let headers = response.headers();
    for name in model.answers_with.keys() {
        let (sent, got) = (model.answers_with.get_all(name), headers.get_all(name));
        assert!(sent.iter().eq(got.iter()), "{name} was changed: {got:?}");
    }
    let added = ["cache-control", "content-type", "session-memory", "x-session-id"];
    let mut others: Vec<_> = headers
        .keys()
        .filter(|name| !model.answers_with.contains_key(*name))
        .map(http::HeaderName::as_str)
        .collect();
    others.sort_unstable();
    assert_eq!(others, added, "only what is documented is added");
}

#[tokio::test]
async fn a_cache_is_told_not_to_keep_what_a_memory_has_answered_unless_the_upstream_told_it_otherwise() {
    let mut model = Model::default();
    let layer = SessionMemoryLayer::new(InMemoryStore::new());
    let response = call(&layer.layer(model.service()), ask("s", "hi")).await;
    assert_eq!(response.headers()["cache-control"], "no-store");
    model.answers_with.insert("cache-control", "private, max-age=60".parse().unwrap());
    let response = call(&layer.layer(model.service()), ask("s", "hi")).await;
    assert_eq!(response.headers()["cache-control"], "private, max-age=60");
}

#[cfg(feature = "cookies")]
mod cookies {
    use tower_session_memory::session::{Cookie, ExtractSession};

    use super::*;

    /// What a browser sends by itself, from a page whose origin and relation are these.
    async fn answer(headers: &[(&'static str, &str)]) -> StatusCode {
        let layer = SessionMemoryLayer::new(InMemoryStore::new())
            .with_session_sources([Arc::new(Cookie::new("sid")) as Arc<dyn ExtractSession>])
            .with_trusted_origins(["https://trusted.example".parse().unwrap()]);
        let mut request = with(ask("", "hi"), &[("cookie", "sid=s"), ("host", "here.example")]);
        request.headers_mut().remove("x-session-id");
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let model = Model::default();
        let status = call(&layer.layer(model.service()), request).await.status();
        let asked = model.seen.lock().unwrap().len();
        assert_eq!(
            asked,
            usize::from(status == StatusCode::OK),
            "a refused request goes nowhere: {headers:?}"
        );
        status
    }

    #[tokio::test]
    async fn a_page_of_another_site_cannot_write_into_the_session_of_a_cookie() {
        for headers in [
            // What a form or a `fetch` without a preflight can send.
            &[("content-type", "text/plain")][..],
            &[("content-type", "application/x-www-form-urlencoded")],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "cross-site"), ("origin", "https://here.example")],
            // Browsers that do not send `sec-fetch-site`.
            &[("origin", "https://evil.example")],
            &[("origin", "https://here.example.evil.example")],
            &[("origin", "null")],
            &[("content-type", "text/plain"), ("origin", "https://trusted.example")],
        ] {
            assert_eq!(answer(headers).await, StatusCode::BAD_REQUEST, "{headers:?}");
        }
    }

    #[tokio::test]
    async fn a_page_of_the_same_site_or_a_trusted_one_can_use_the_session_of_a_cookie() {
        for headers in [
            &[][..],
            &[("content-type", "application/json; charset=utf-8")],
            &[("sec-fetch-site", "same-origin"), ("origin", "https://here.example")],
            &[("sec-fetch-site", "same-site"), ("origin", "https://www.here.example")],
            &[("origin", "https://here.example")],
            &[("origin", "http://here.example")],
            &[("sec-fetch-site", "cross-site"), ("origin", "https://trusted.example")],
        ] {
            assert_eq!(answer(headers).await, StatusCode::OK, "{headers:?}");
        }
    }

    #[tokio::test]
    async fn without_a_content_type_a_cookie_names_no_session() {
        let layer = SessionMemoryLayer::new(InMemoryStore::new())
            .with_session_sources([Arc::new(Cookie::new("sid")) as Arc<dyn ExtractSession>]);
        let mut request = with(ask("", "hi"), &[("cookie", "sid=s")]);
        request.headers_mut().remove("x-session-id");
        request.headers_mut().remove("content-type");
        let response = call(&layer.layer(Model::default().service()), request).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    }
}
