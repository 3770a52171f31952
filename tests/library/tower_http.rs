//! The usual layers of tower-http, outside and inside of the memory, in one `ServiceBuilder`.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_http::{
    cors::CorsLayer, limit::RequestBodyLimitLayer, sensitive_headers::SetSensitiveRequestHeadersLayer,
    timeout::TimeoutLayer, trace::TraceLayer,
};
use tower_session_memory::{RequestBody, ResponseBody, SessionMemoryLayer, store::InMemoryStore};

use crate::layer::support::{JSON, ask, reply};

type Answer = Response<Full<Bytes>>;

async fn model<B>(request: Request<RequestBody<B>>) -> Result<Answer, Infallible>
where
    RequestBody<B>: http_body::Body<Data = Bytes>,
    <RequestBody<B> as http_body::Body>::Error: std::fmt::Debug,
{
    let body = request.into_body().collect().await.expect("a whole body").to_bytes();
    let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    let seen = body["messages"].as_array().map_or(0, Vec::len);
    let answer = Full::new(Bytes::from(reply(&format!("I have seen {seen} messages."))));
    Ok(Response::builder().header(header::CONTENT_TYPE, JSON).body(answer).unwrap())
}

async fn said<S, B>(service: &mut S, text: &str) -> (StatusCode, String)
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>>,
    S::Error: std::fmt::Debug,
    B: http_body::Body<Data = Bytes>,
    B::Error: std::fmt::Debug,
{
    let mut request = ask("s", text);
    request.headers_mut().insert(header::ORIGIN, "https://chat.example".parse().unwrap());
    let response = service.ready().await.unwrap().call(request).await.unwrap();
    let (head, body) = response.into_parts();
    assert_eq!(head.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*", "CORS is outside");
    (head.status, String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

#[tokio::test]
async fn the_usual_layers_stand_outside_and_inside() {
    let limit = Duration::from_secs(30);
    let mut service = ServiceBuilder::new()
        .layer(TraceLayer::new_for_http())
        .layer(SetSensitiveRequestHeadersLayer::new([header::AUTHORIZATION]))
        .layer(CorsLayer::permissive())
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, limit))
        .layer(SessionMemoryLayer::new(InMemoryStore::new()))
        .layer(TraceLayer::new_for_http())
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, limit))
        .service_fn(model);
    for turn in 0..3 {
        let (status, text) = said(&mut service, "hello").await;
        assert_eq!(status, 200);
        assert!(text.contains(&format!("I have seen {} messages.", 2 * turn + 1)), "{text}");
    }
}

#[tokio::test]
async fn a_body_that_tower_http_limits_is_refused_and_not_remembered() {
    let store = std::sync::Arc::new(InMemoryStore::new());
    let mut service = ServiceBuilder::new()
        .layer(RequestBodyLimitLayer::new(40))
        .layer(SessionMemoryLayer::from_arc(store.clone()))
        .service_fn(model);
    let response = service.ready().await.unwrap().call(ask("s", "hello")).await.unwrap();
    assert!(response.status().is_client_error(), "{}", response.status());
    assert_eq!(store.stats().sessions, 0);
}

/// An outer layer that answers by itself makes a body of ours.
#[test]
fn bodies_of_ours_have_a_default() {
    fn is_default<T: Default>() {}
    is_default::<ResponseBody<Full<Bytes>>>();
    is_default::<RequestBody<Full<Bytes>>>();
}
