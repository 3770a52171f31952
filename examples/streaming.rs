//! A chat service of one's own that streams its replies as server-sent events, with a memory.
//!
//! ```sh
//! cargo run --example streaming -- 127.0.0.1:8080
//! curl -sNH 'content-type: application/json' -H 'x-session-id: demo' \
//!     -d '{"stream":true,"messages":[{"role":"user","content":"Hello"}]}' http://127.0.0.1:8080/v1/chat/completions
//! ```

use std::{convert::Infallible, time::Duration};

use axum::{Json, Router, body::Body, http::header, response::IntoResponse, routing::post};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower_session_memory::{SessionMemoryLayer, store::InMemoryStore};

/// The model: says word by word how many messages it was sent. Note that it knows nothing of sessions.
async fn chat(Json(request): Json<Value>) -> impl IntoResponse {
    let seen = request["messages"].as_array().map_or(0, Vec::len);
    let mut events: Vec<String> = format!("I have seen {seen} messages.")
        .split_inclusive(' ')
        .map(|word| json!({"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": null}]}))
        .map(|chunk| format!("data: {chunk}\n\n"))
        .collect();
    let end = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
    events.extend([format!("data: {end}\n\n"), "data: [DONE]\n\n".to_owned()]);
    let stream = futures_util::stream::unfold(events.into_iter(), |mut events| async {
        let event = events.next()?;
        tokio::time::sleep(Duration::from_millis(20)).await;
        Some((Ok::<_, Infallible>(event), events))
    });
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(stream))
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let memory = SessionMemoryLayer::new(InMemoryStore::new());
    let commits = memory.commits();
    let app = Router::new().route("/v1/chat/completions", post(chat)).layer(memory);

    let listener = TcpListener::bind(addr).await?;
    println!("listening on {}", listener.local_addr()?);
    axum::serve(listener, app).with_graceful_shutdown(async { drop(tokio::signal::ctrl_c().await) }).await?;
    commits.drain(Duration::from_secs(10)).await;
    Ok(())
}
