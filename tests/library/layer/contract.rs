//! What Tower and the frameworks on it expect.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, buffer::BufferLayer, limit::ConcurrencyLimitLayer};
use tower_session_memory::{
    OnDisconnect, OnMissing, RequestBody, ResponseBody, ResponseFuture, SessionMemory, SessionMemoryLayer,
    store::{HistoryStore, InMemoryStore},
};

use crate::layer::support::{JSON, Model, Moody, ask, converse, key, reply};

/// A service that insists on being polled ready before each call, on the very instance that is called.
struct Probe {
    ready: bool,
}

impl Clone for Probe {
    fn clone(&self) -> Self {
        Self { ready: false }
    }
}

impl Service<Request<RequestBody<Full<Bytes>>>> for Probe {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Full<Bytes>>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<RequestBody<Full<Bytes>>>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called on an instance that was not polled ready");
        ready(Ok(Response::builder().header("content-type", JSON).body(Full::from(reply("ok"))).unwrap()))
    }
}

#[tokio::test]
async fn the_instance_that_was_polled_ready_is_the_one_that_is_called() {
    for on_disconnect in [OnDisconnect::Keep, OnDisconnect::Drain] {
        let layer = SessionMemoryLayer::new(InMemoryStore::new()).on_disconnect(on_disconnect);
        let mut service = layer.layer(Probe { ready: false });
        for request in [ask("s", "hi"), Request::post("/v1/chat/completions").body(Full::default()).unwrap()]
        {
            let response = service.ready().await.unwrap().call(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
        }
    }
}

#[test]
fn services_futures_and_bodies_can_be_sent_and_shared() {
    fn send<T: Send>() {}
    fn sync<T: Sync>() {}
    fn unpin<T: Unpin>() {}
    send::<SessionMemoryLayer>();
    sync::<SessionMemoryLayer>();
    send::<SessionMemory<Probe>>();
    sync::<SessionMemory<Probe>>();
    send::<ResponseFuture<Ready<Result<Response<Full<Bytes>>, Infallible>>, Full<Bytes>, Infallible>>();
    send::<ResponseBody<Full<Bytes>>>();
    unpin::<ResponseBody<Full<Bytes>>>();
    send::<RequestBody<Full<Bytes>>>();
    sync::<RequestBody<Full<Bytes>>>();
}

#[tokio::test]
async fn the_layer_works_inside_and_outside_of_limits_and_buffers() {
    let layer = SessionMemoryLayer::new(InMemoryStore::new());
    let model = Model::default();
    let mut service = ServiceBuilder::new()
        .layer(ConcurrencyLimitLayer::new(1))
        .layer(BufferLayer::new(4))
        .layer(layer)
        .layer(ConcurrencyLimitLayer::new(1))
        .layer(BufferLayer::new(4))
        .service(model.saying("pong"));
    for turn in 0..3 {
        let response = service.ready().await.unwrap().call(ask("s", "ping")).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, reply("pong"), "turn {turn}");
    }
    assert_eq!(model.contents(2), ["ping", "pong", "ping", "pong", "ping"]);
}

#[tokio::test]
async fn the_layer_goes_around_an_axum_router() {
    let layer = SessionMemoryLayer::new(InMemoryStore::new());
    let handler = |body: String| async move { ([("content-type", JSON)], reply(&body.len().to_string())) };
    let router = axum::Router::new()
        .route("/v1/chat/completions", axum::routing::post(handler))
        .layer(layer.clone())
        .layer(axum::middleware::map_response(|response: axum::response::Response| async { response }));
    let request = ask("s", "hi").map(axum::body::Body::new);
    let response = router.oneshot(request).await.unwrap();
    assert_eq!(response.headers()["session-memory"].to_str().unwrap().split(';').next(), Some("new"));
}

#[tokio::test]
async fn the_inner_services_error_stays_its_own() {
    #[derive(Debug, PartialEq)]
    struct Mine;
    let inner = tower::service_fn(|_: Request<RequestBody<Full<Bytes>>>| {
        ready(Err::<Response<Full<Bytes>>, _>(Mine))
    });
    let service = SessionMemoryLayer::new(InMemoryStore::new()).layer(inner);
    let error = service.oneshot(ask("s", "hi")).await.map(|_| ()).unwrap_err();
    assert_eq!(error, Mine);
}

#[tokio::test]
async fn a_panic_in_the_inner_service_is_the_callers_and_harms_nobody_else() {
    for on_disconnect in [OnDisconnect::Keep, OnDisconnect::Drain] {
        let store = Moody::new();
        let layer = SessionMemoryLayer::new(store.clone()).on_disconnect(on_disconnect);
        let explode = Arc::new(AtomicBool::new(true));
        let inner = tower::service_fn(move |_: Request<RequestBody<Full<Bytes>>>| {
            let explode = explode.swap(false, Ordering::SeqCst);
            async move {
                assert!(!explode, "the model panics");
                Ok::<_, Infallible>(
                    Response::builder().header("content-type", JSON).body(Full::from(reply("fine"))).unwrap(),
                )
            }
        });
        let service = layer.layer(inner);
        let first = tokio::spawn(service.clone().oneshot(ask("s", "one"))).await;
        assert!(first.unwrap_err().is_panic(), "the panic reaches the caller");
        let second = service.oneshot(ask("s", "two")).await.unwrap();
        second.into_body().collect().await.unwrap();
        let turns = store.turns("s").await;
        assert_eq!(turns.len(), 1, "only the turn that was answered is stored");
    }
}

#[tokio::test]
async fn a_request_without_a_session_is_not_even_looked_at() {
    let layer = SessionMemoryLayer::new(Moody::new());
    let inner = tower::service_fn(|request: Request<RequestBody<Full<Bytes>>>| async move {
        let (head, body) = request.into_parts();
        assert_eq!(head.headers.len(), 2, "the head is the client's: {:?}", head.headers);
        Ok::<_, Infallible>(Response::new(body))
    });
    let request = Request::post("/v1/chat/completions")
        .header("content-type", JSON)
        .header("session-memory", "nonsense")
        .body(Full::from("not json"))
        .unwrap();
    let response = layer.layer(inner).oneshot(request).await.unwrap();
    assert!(response.headers().is_empty(), "{:?}", response.headers());
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "not json");
}

#[tokio::test]
async fn sixty_four_callers_of_one_session_line_up() {
    let store = Moody::new();
    let layer = SessionMemoryLayer::new(store.clone());
    let inner = Model::default().saying("yes");
    let callers: Vec<_> = (0..64)
        .map(|n| {
            let (layer, inner) = (layer.clone(), inner.clone());
            tokio::spawn(async move { converse(&layer, &inner, "s", &n.to_string()).await })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(store.turns("s").await.len(), 64);
    let model = Model::default();
    converse(&layer, &model.saying("all"), "s", "last").await;
    assert_eq!(model.contents(0).len(), 129, "every turn is on the path, whole");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_pauses_its_upload_is_told_so() {
    let layer = SessionMemoryLayer::new(InMemoryStore::new());
    let (script, body) = crate::layer::support::scripted(None);
    script.data("{\"messages\":");
    let inner = tower::service_fn(|_: Request<RequestBody<crate::layer::support::Scripted>>| async {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    });
    let request = Request::post("/v1/chat/completions").header("x-session-id", "s").body(body).unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(31), layer.layer(inner).oneshot(request)).await;
    assert_eq!(answer.expect("a bounded wait").unwrap().status(), StatusCode::REQUEST_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_body_past_its_limit_is_refused_before_it_comes_or_where_it_passes_the_limit() {
    let limits = tower_session_memory::Limits::default().with_max_request_body(1_000);
    let layer = SessionMemoryLayer::new(InMemoryStore::new()).with_limits(limits);
    for announced in [Some(1_001), None] {
        let (script, body) = crate::layer::support::scripted(announced);
        if announced.is_none() {
            // The rest never comes: the layer must not wait for it.
            script.data(vec![b' '; 600]);
            script.data(vec![b' '; 401]);
        }
        let inner = tower::service_fn(|_: Request<RequestBody<crate::layer::support::Scripted>>| async {
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        });
        let request = Request::post("/v1/chat/completions").header("x-session-id", "s").body(body).unwrap();
        let response = layer.layer(inner).oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE, "announced: {announced:?}");
    }
}

#[tokio::test]
async fn the_key_in_the_extensions_beats_every_header() {
    let store = Moody::new();
    let layer = SessionMemoryLayer::new(store.clone());
    let mut request = ask("from-header", "hi");
    request.extensions_mut().insert(key("from-extension"));
    let service = layer.layer(Model::default().saying("hello"));
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.headers()["x-session-id"], "from-extension");
    response.into_body().collect().await.unwrap();
    assert_eq!(store.turns("from-extension").await.len(), 1);
    assert!(store.store.load(&key("from-header"), None).await.unwrap().records.is_empty());
}

#[tokio::test]
async fn a_response_names_its_session_also_where_memory_was_bypassed() {
    let store = Moody::new();
    let layer = SessionMemoryLayer::new(store.clone())
        .on_missing_session(OnMissing::Issue)
        .on_load_error(tower_session_memory::OnLoadError::Bypass);
    let inner = tower::service_fn(|_: Request<RequestBody<Full<Bytes>>>| async {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    });
    let service = layer.layer(inner);
    let chat = || Request::post("/v1/chat/completions").header("content-type", JSON);
    let uneditable = chat().body(Full::from("not json")).unwrap();
    let form = Request::post("/v1/chat/completions").header("content-type", "text/csv");
    for request in [uneditable, form.body(Full::default()).unwrap()] {
        let response = service.clone().oneshot(request).await.unwrap();
        assert!(response.headers()["session-memory"].to_str().unwrap().starts_with("bypass"));
        assert_eq!(response.headers()["x-session-id"].len(), 43, "an issued id must reach the client");
        assert_eq!(response.headers()["cache-control"], "no-store");
    }
    store.loads_fail.store(true, Ordering::SeqCst);
    let degraded = service.clone().oneshot(ask("s", "hi")).await.unwrap();
    assert_eq!(degraded.headers()["session-memory"], "degraded; reason=load_failed");
    assert_eq!(degraded.headers()["x-session-id"], "s");
    let off = chat().header("x-session-id", "s").header("session-memory", "off");
    let off = service.oneshot(off.body(Full::default()).unwrap()).await.unwrap();
    assert!(!off.headers().contains_key("x-session-id"), "as if we were not here");
}

#[cfg(feature = "cookies")]
#[tokio::test]
async fn a_session_named_by_a_cookie_is_refused_to_other_sites_over_http_1_and_2() {
    use tower_session_memory::session::{Cookie, ExtractSession};

    let layer = SessionMemoryLayer::new(Moody::new())
        .with_session_sources([Arc::new(Cookie::new("chat")) as Arc<dyn ExtractSession>]);
    let service = layer.layer(Model::default().saying("hello"));
    let ask = |uri: &str, headers: &[(&str, &str)]| {
        let body = r#"{"messages":[{"role":"user","content":"hi"}]}"#;
        let request = Request::post(uri).header("cookie", "chat=s").header("content-type", JSON);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        service.clone().oneshot(request.body(Full::from(body)).unwrap())
    };
    let (http1, http2) = ("/v1/chat/completions", "https://chat.example/v1/chat/completions");
    for (uri, headers, status) in [
        (http1, &[("host", "chat.example"), ("origin", "https://Chat.example")][..], 200),
        (http1, &[("host", "chat.example"), ("origin", "https://evil.example")], 400),
        (http2, &[("origin", "https://chat.example")], 200),
        (http2, &[("origin", "https://evil.example")], 400),
        (http2, &[("origin", "null")], 400),
        (http2, &[("origin", "https://chat.example"), ("sec-fetch-site", "cross-site")], 400),
        (http2, &[], 200),
    ] {
        assert_eq!(ask(uri, headers).await.unwrap().status(), status, "{uri} {headers:?}");
    }
}

/// A model that calls a tool again and again, with `bytes` bytes of arguments.
fn calling(bytes: usize) -> (crate::layer::support::Inner, Arc<std::sync::atomic::AtomicUsize>) {
    let calls = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let inner = tower::service_fn(move |_: Request<RequestBody<Full<Bytes>>>| {
        let n = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            let call = serde_json::json!({"id": format!("c{n}"), "type": "function",
                "function": {"name": "f", "arguments": format!("{{\"a\":\"{}\"}}", "x".repeat(bytes))}});
            let message = serde_json::json!({"role": "assistant", "content": null, "tool_calls": [call]});
            let reply = serde_json::json!({"choices": [{"message": message, "finish_reason": "tool_calls"}]});
            let (script, body) = crate::layer::support::scripted(None);
            script.data(reply.to_string());
            Ok::<_, Infallible>(Response::builder().header("content-type", JSON).body(body).unwrap())
        }
    });
    (tower::util::BoxCloneSyncService::new(inner), calls)
}

#[tokio::test]
async fn a_tool_exchange_that_outgrows_the_history_limit_is_refused_before_it_is_sent() {
    let store = Moody::new();
    let layer = SessionMemoryLayer::new(store.clone())
        .with_limits(tower_session_memory::Limits::default().with_max_history(1_000));
    let (inner, calls) = calling(400);
    converse(&layer, &inner, "s", "begin").await;
    let answer = |n: usize| {
        let body = serde_json::json!({"messages": [{"role": "tool", "tool_call_id": format!("c{n}"), "content": "ok"}]});
        ask("s", "").map(|_| Full::from(body.to_string()))
    };
    let service = layer.layer(inner);
    let second = service.clone().oneshot(answer(0)).await.unwrap();
    second.into_body().collect().await.unwrap();
    assert_eq!(store.turns("s").await.len(), 2);
    let refused = service.oneshot(answer(1)).await.unwrap();
    assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let error = refused.into_body().collect().await.unwrap().to_bytes();
    let error: serde_json::Value = serde_json::from_slice(&error).unwrap();
    assert_eq!(error["error"]["code"], "request_too_large");
    assert!(
        error["error"]["message"].as_str().unwrap().contains("max_history"),
        "it names the setting: {error}"
    );
    assert_eq!(calls.load(Ordering::SeqCst), 2, "nothing goes upstream");
}

#[tokio::test]
async fn a_turn_that_could_never_be_sent_again_is_not_stored_and_the_session_goes_on() {
    let store = Moody::new();
    let layer = SessionMemoryLayer::new(store.clone())
        .with_limits(tower_session_memory::Limits::default().with_max_history(1_000));
    let model = Model::default();
    let inner = model.saying("hello");
    converse(&layer, &inner, "s", "short").await;
    assert_eq!(converse(&layer, &inner, "s", &"long".repeat(300)).await.status(), StatusCode::OK);
    assert_eq!(converse(&layer, &inner, "s", "one more").await.status(), StatusCode::OK);
    assert_eq!(model.contents(2), ["short", "hello", "one more"], "the turn past the limit was not recorded");
    for _ in 0..20 {
        assert_eq!(converse(&layer, &inner, "s", &"x".repeat(200)).await.status(), StatusCode::OK);
    }
    assert_eq!(store.turns("s").await.len(), 22, "a limit below the window moves the window");
}

#[tokio::test]
async fn what_was_said_is_said_again_in_the_same_bytes() {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (system, first) =
        (r#"{ "content":"S" ,"role":"system"}"#, r#"{ "role":"user", "content":"caf\u00e9", "n":1.50 }"#);
    let (answer, second) =
        (r#"{"content" : "oui \/ non","role":"assistant"}"#, r#"{"role":"user","content":"et alors"}"#);
    let inner = {
        let seen = Arc::clone(&seen);
        tower::service_fn(move |request: Request<RequestBody<Full<Bytes>>>| {
            let seen = Arc::clone(&seen);
            async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                seen.lock().unwrap().push(body);
                let reply = format!(r#"{{"choices":[{{"finish_reason":"stop","message":{answer}}}]}}"#);
                Ok::<_, Infallible>(
                    Response::builder().header("content-type", JSON).body(Full::from(reply)).unwrap(),
                )
            }
        })
    };
    let service = SessionMemoryLayer::new(InMemoryStore::new()).layer(inner);
    for body in [
        format!(r#"{{ "temperature":1.0, "messages" : [{system}, {first} ] , "model":"m" }}"#),
        format!(r#"{{"model":"m","messages":[  {second}],"seed":1e2}}"#),
    ] {
        let request =
            Request::post("/v1/chat/completions").header("x-session-id", "s").body(Full::from(body));
        service.clone().oneshot(request.unwrap()).await.unwrap().into_body().collect().await.unwrap();
    }
    let seen = seen.lock().unwrap();
    assert_eq!(
        seen[0],
        format!(r#"{{ "temperature":1.0, "messages" : [{system}, {first} ] , "model":"m" }}"#)
    );
    let replayed = format!(r#"{{"model":"m","messages":[  {system},{first},{answer},{second}],"seed":1e2}}"#);
    assert_eq!(seen[1], replayed);
}

#[cfg(feature = "compression")]
#[tokio::test]
async fn a_body_that_unpacks_to_a_thousand_times_its_size_is_refused_though_it_would_fit() {
    use std::io::Write;

    let model = Model::default();
    let service = SessionMemoryLayer::new(InMemoryStore::new()).layer(model.saying("hello"));
    // A long text of a few words packs well, too, and is no bomb.
    for (text, status) in [("0".repeat(2 << 20), 413), ("the quick brown fox ".repeat(20_000), 200)] {
        let body = serde_json::json!({"messages": [{"role": "user", "content": text}]}).to_string();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(body.as_bytes()).unwrap();
        let request = ask("s", "").map(|_| Full::from(gzip.finish().unwrap()));
        let (mut head, body) = request.into_parts();
        head.headers.insert("content-encoding", "gzip".parse().unwrap());
        let response = service.clone().oneshot(Request::from_parts(head, body)).await.unwrap();
        assert_eq!(response.status(), status);
    }
    assert_eq!(model.seen.lock().unwrap().len(), 1, "a bomb goes nowhere");
}
