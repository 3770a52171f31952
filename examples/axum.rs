//! A chat service of one's own, with a memory.
//!
//! ```sh
//! cargo run --example axum -- 127.0.0.1:8080
//! curl -sH 'content-type: application/json' -H 'x-session-id: demo' \
//!     -d '{"messages":[{"role":"user","content":"Hello"}]}' http://127.0.0.1:8080/v1/chat/completions
//! ```

use axum::{Json, Router, routing::post};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower_session_memory::{SessionMemoryLayer, store::InMemoryStore};

/// The model: it tells what it was sent. Note that it knows nothing of sessions.
async fn chat(Json(request): Json<Value>) -> Json<Value> {
    let messages = request["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let said: Vec<_> = messages.iter().filter(|m| m["role"] == "user").map(|m| &m["content"]).collect();
    let message = json!({"role": "assistant", "content": format!("So far you said: {}", json!(said))});
    Json(json!({"object": "chat.completion", "model": "parrot",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}))
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
    commits.drain(std::time::Duration::from_secs(10)).await;
    Ok(())
}
