//! A scripted model, which answers from the messages of the request alone.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::error::BoxError;

/// A message of a request: its role and its text.
#[derive(Clone)]
pub(super) struct SeenMessage {
    pub(super) role: String,
    pub(super) text: String,
}

/// A model that listens on loopback.
pub(super) struct Model {
    pub(super) url: String,
    seen: Arc<Mutex<Vec<SeenMessage>>>,
}

impl Model {
    pub(super) async fn start() -> Result<Self, BoxError> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let tasks = TaskTracker::new();
        tasks.spawn(listen(listener, Arc::clone(&seen), tasks.clone()));
        Ok(Self { url, seen })
    }

    /// The messages of the last request.
    pub(super) fn seen(&self) -> Vec<SeenMessage> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The roles of the messages.
pub(super) fn roles(messages: &[SeenMessage]) -> Vec<&str> {
    messages.iter().map(|message| message.role.as_str()).collect()
}

async fn listen(listener: TcpListener, seen: Arc<Mutex<Vec<SeenMessage>>>, tasks: TaskTracker) {
    while let Ok((stream, _)) = listener.accept().await {
        let seen = Arc::clone(&seen);
        tasks.spawn(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&seen)));
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    seen: Arc<Mutex<Vec<SeenMessage>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = match request.into_body().collect().await {
        Ok(body) => serde_json::from_slice(&body.to_bytes()).unwrap_or(Value::Null),
        Err(_) => Value::Null,
    };
    let messages = read(&body);
    let text = reply(&messages);
    *seen.lock().unwrap_or_else(PoisonError::into_inner) = messages;
    let (kind, body) = match body["stream"].as_bool() {
        Some(true) => ("text/event-stream", stream(&text)),
        _ => ("application/json", whole(&text)),
    };
    let response = Response::builder().status(StatusCode::OK).header(header::CONTENT_TYPE, kind);
    Ok(response.body(Full::new(body.into())).unwrap_or_default())
}

fn read(body: &Value) -> Vec<SeenMessage> {
    let messages = body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    messages
        .iter()
        .map(|message| SeenMessage { role: text(&message["role"]), text: text(&message["content"]) })
        .collect()
}

/// The reply: the name and the floors that any of the user's messages mentions.
fn reply(messages: &[SeenMessage]) -> String {
    let said = |before: &str| {
        let users = messages.iter().filter(|message| message.role == "user");
        let after = users.filter_map(|message| message.text.split_once(before)).next()?.1;
        after.split([' ', ',', '.']).next().map(str::to_owned)
    };
    match (messages.len(), said("name is "), said("will have ")) {
        (_, None, _) => "I do not know your name: no message mentions it.".to_owned(),
        (_, Some(name), None) => format!("Nice to meet you, {name}. How tall will it be?"),
        (3, Some(name), Some(floors)) => format!("A tower of {floors} floors! Good luck, {name}."),
        (_, Some(name), Some(floors)) => format!("You are {name}, and your tower will have {floors} floors."),
    }
}

fn whole(text: &str) -> String {
    json!({
        "id": "chatcmpl-demo", "object": "chat.completion", "created": 0, "model": "scripted",
        "choices": [{
            "index": 0, "finish_reason": "stop", "message": { "role": "assistant", "content": text }
        }],
    })
    .to_string()
}

fn stream(text: &str) -> String {
    let event = |delta: Value, finish: Value| {
        let chunk = json!({
            "id": "chatcmpl-demo", "object": "chat.completion.chunk", "created": 0, "model": "scripted",
            "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }],
        });
        format!("data: {chunk}\n\n")
    };
    let mut events = event(json!({ "role": "assistant", "content": "" }), Value::Null);
    for word in text.split_inclusive(' ') {
        events += &event(json!({ "content": word }), Value::Null);
    }
    events + &event(json!({}), json!("stop")) + "data: [DONE]\n\n"
}
