//! Whose session it is, and which.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tower::{Layer, ServiceExt};
use tower_session_memory::{OnMissing, SessionMemoryLayer, session::PrincipalPolicy, store::InMemoryStore};

use crate::layer::support::{JSON, Model, Moody, ask, call};

/// A model that answers with the headers that it was sent, as `name=value` lines.
async fn heads(layer: &SessionMemoryLayer, request: Request<Full<Bytes>>) -> Response<String> {
    let inner =
        tower::service_fn(|request: Request<tower_session_memory::RequestBody<Full<Bytes>>>| async move {
            let lines: Vec<_> = request
                .headers()
                .iter()
                .map(|(name, value)| format!("{name}={}", value.to_str().unwrap()))
                .collect();
            let message = serde_json::json!({"role": "assistant", "content": lines.join("\n")});
            let reply = serde_json::json!({"choices": [{"message": message, "finish_reason": "stop"}]});
            let response = Response::builder().header("content-type", JSON);
            Ok::<_, std::convert::Infallible>(response.body(Full::<Bytes>::from(reply.to_string())).unwrap())
        });
    let (head, body) = layer.layer(inner).oneshot(request).await.unwrap().into_parts();
    let body: serde_json::Value =
        serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap_or_default();
    let text = body["choices"][0]["message"]["content"].as_str().or(body["error"]["code"].as_str());
    Response::from_parts(head, text.unwrap_or_default().to_owned())
}

#[tokio::test]
async fn what_is_ours_is_removed_before_forwarding_and_what_is_not_stays() {
    let layer = SessionMemoryLayer::new(InMemoryStore::new());
    let mut request = ask("secret-session", "hi");
    request.headers_mut().insert("session-memory", HeaderValue::from_static("append"));
    request.headers_mut().insert("accept-encoding", HeaderValue::from_static("gzip, br"));
    request.headers_mut().insert("expect", HeaderValue::from_static("100-continue"));
    request.headers_mut().insert("content-digest", HeaderValue::from_static("sha-256=:x:"));
    request.headers_mut().insert("authorization", HeaderValue::from_static("Bearer sk-1"));
    let seen = heads(&layer, request).await.into_body();
    for gone in ["secret-session", "session-memory", "expect", "content-digest", "gzip"] {
        assert!(!seen.contains(gone), "{gone} was forwarded: {seen}");
    }
    for kept in ["authorization=Bearer sk-1", "content-type=application/json", "accept-encoding=identity"] {
        assert!(seen.contains(kept), "{kept} is missing: {seen}");
    }
}

#[tokio::test]
async fn the_upstream_is_told_the_session_only_where_that_is_asked_for() {
    let name = HeaderName::from_static("x-conversation");
    let layer = SessionMemoryLayer::new(InMemoryStore::new()).with_forwarded_session_id(Some(name));
    let seen = heads(&layer, ask("s-1", "hi")).await.into_body();
    assert!(seen.contains("x-conversation=s-1"), "{seen}");
}

#[tokio::test]
async fn two_credentials_with_one_session_id_are_two_conversations() {
    let store = Moody::new();
    let layer = SessionMemoryLayer::new(store);
    let model = Model::default();
    let service = layer.layer(model.saying("hello"));
    for credential in ["Bearer a", "Bearer b"] {
        let mut request = ask("shared", credential);
        request.headers_mut().insert("authorization", HeaderValue::from_static(credential));
        call(&service, request).await.into_body().collect().await.unwrap();
    }
    assert_eq!(model.contents(1), ["Bearer b"], "the second caller must not see the first one's messages");
    let everyone = SessionMemoryLayer::new(Moody::new()).with_principal(PrincipalPolicy::danger_shared());
    let service = everyone.layer(model.saying("hello"));
    for credential in ["Bearer a", "Bearer b"] {
        let mut request = ask("shared", credential);
        request.headers_mut().insert("authorization", HeaderValue::from_static(credential));
        call(&service, request).await.into_body().collect().await.unwrap();
    }
    assert_eq!(model.contents(3), ["Bearer a", "hello", "Bearer b"], "unless that is chosen");
}

#[tokio::test]
async fn namespaces_in_one_store_never_meet() {
    let store = std::sync::Arc::new(InMemoryStore::new());
    let model = Model::default();
    for namespace in ["a", "b"] {
        let layer = SessionMemoryLayer::from_arc(store.clone()).with_namespace(namespace);
        let service = layer.layer(model.saying("hello"));
        call(&service, ask("s", namespace)).await.into_body().collect().await.unwrap();
    }
    assert_eq!(model.contents(1), ["b"]);
}

#[tokio::test]
async fn a_missing_id_is_refused_or_issued_where_that_is_asked_for() {
    let anonymous = || {
        let mut request = ask("x", "hi");
        request.headers_mut().remove("x-session-id");
        request
    };
    let layer = SessionMemoryLayer::new(InMemoryStore::new()).on_missing_session(OnMissing::Reject);
    let refused = heads(&layer, anonymous()).await;
    assert_eq!((refused.status(), refused.body().as_str()), (StatusCode::BAD_REQUEST, "missing_session_id"));

    let layer = SessionMemoryLayer::new(InMemoryStore::new()).on_missing_session(OnMissing::Issue);
    let first = heads(&layer, anonymous()).await;
    let second = heads(&layer, anonymous()).await;
    let ids =
        [&first, &second].map(|response| response.headers()["x-session-id"].to_str().unwrap().to_owned());
    assert_ne!(ids[0], ids[1]);
    assert_eq!(ids[0].len(), 43, "256 random bits in base64url");
    let again = heads(&layer, ask(&ids[0], "more")).await;
    assert!(again.headers()["session-memory"].to_str().unwrap().starts_with("hit; client=delta; turns=1;"));
}

#[tokio::test]
async fn an_unknown_control_is_refused_before_anything_happens() {
    let layer = SessionMemoryLayer::new(InMemoryStore::new());
    for controls in [&["maybe"][..], &["OFF"], &[""], &["off", "read"]] {
        let mut request = ask("s", "hi");
        for control in controls {
            request.headers_mut().append("session-memory", HeaderValue::from_static(control));
        }
        let refused = heads(&layer, request).await;
        assert_eq!((refused.status(), refused.body().as_str()), (StatusCode::BAD_REQUEST, "invalid_request"));
    }
}

#[tokio::test]
async fn responses_of_a_session_are_not_to_be_cached_unless_the_upstream_says_how() {
    let layer = SessionMemoryLayer::new(InMemoryStore::new());
    assert_eq!(heads(&layer, ask("s", "hi")).await.headers()["cache-control"], "no-store");
    let inner = tower::service_fn(|_: Request<tower_session_memory::RequestBody<Full<Bytes>>>| async {
        let response = Response::builder().header("content-type", JSON).header("cache-control", "private");
        Ok::<_, std::convert::Infallible>(response.body(Full::<Bytes>::from("{}")).unwrap())
    });
    let response = layer.layer(inner).oneshot(ask("s", "hi")).await.unwrap();
    assert_eq!(response.headers()["cache-control"], "private");
}

#[cfg(not(feature = "compression"))]
#[tokio::test]
async fn without_the_feature_a_compressed_body_is_refused_by_name() {
    let layer = SessionMemoryLayer::new(InMemoryStore::new());
    let mut request = ask("s", "hi");
    request.headers_mut().insert("content-encoding", HeaderValue::from_static("gzip"));
    let refused = heads(&layer, request).await;
    let expected = (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding");
    assert_eq!((refused.status(), refused.body().as_str()), expected);
}

#[cfg(feature = "cookies")]
mod cookies {
    use std::sync::Arc;

    use tower_session_memory::session::{Cookie, ExtractSession};

    use super::*;

    fn layer() -> SessionMemoryLayer {
        SessionMemoryLayer::new(InMemoryStore::new())
            .with_session_sources([Arc::new(Cookie::signed("chat", [*b"0123456789abcdef0123456789abcdef"]))
                as Arc<dyn ExtractSession>])
            .on_missing_session(OnMissing::Issue)
            .with_trusted_origins([HeaderValue::from_static("https://friend.example")])
    }

    fn with(headers: &[(&'static str, &str)]) -> Request<Full<Bytes>> {
        let mut request = ask("x", "hi");
        request.headers_mut().remove("x-session-id");
        for (name, value) in headers {
            request.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
        }
        request
    }

    #[tokio::test]
    async fn an_issued_cookie_carries_the_session_and_does_not_reach_the_upstream() {
        let layer = layer();
        let first = heads(&layer, with(&[])).await;
        let cookie = first.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
        let second = heads(&layer, with(&[("cookie", &format!("theme=dark; {cookie}"))])).await;
        assert!(second.headers()["session-memory"].to_str().unwrap().starts_with("hit"));
        assert!(!second.headers().contains_key("set-cookie"), "an id is issued once");
        assert!(second.body().contains("cookie=theme=dark\n"), "{}", second.body());
    }

    #[tokio::test]
    async fn a_page_of_another_site_cannot_write_into_a_browsers_session() {
        let layer = layer();
        let first = heads(&layer, with(&[])).await;
        let cookie = first.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
        for foreign in [
            &[("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")][..],
            &[("origin", "https://evil.example"), ("host", "chat.example")],
            &[("origin", "null"), ("host", "chat.example")],
            &[("content-type", "text/plain")],
        ] {
            let mut headers = foreign.to_vec();
            headers.push(("cookie", &cookie));
            let refused = heads(&layer, with(&headers)).await;
            assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{foreign:?}");
            assert_eq!(refused.body(), "invalid_request");
        }
        for own in [
            &[("sec-fetch-site", "same-origin"), ("origin", "https://chat.example")][..],
            &[("origin", "https://chat.example"), ("host", "chat.example")],
            &[("sec-fetch-site", "cross-site"), ("origin", "https://friend.example")],
            &[],
        ] {
            let mut headers = own.to_vec();
            headers.push(("cookie", &cookie));
            assert_eq!(heads(&layer, with(&headers)).await.status(), StatusCode::OK, "{own:?}");
        }
    }
}
