//! A conversation that outlives the process: the store is a SQLite file, and what is being stored is drained at the end.
//!
//! ```sh
//! cargo run --features sqlite --example durable -- 127.0.0.1:8080 sessions.db
//! ```

use std::time::Duration;

use axum::{Json, Router, routing::post};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower_session_memory::{
    SessionMemoryLayer,
    store::{Cached, HistoryStore, SqliteStore},
};

async fn chat(Json(request): Json<Value>) -> Json<Value> {
    let seen = request["messages"].as_array().map_or(0, Vec::len);
    let message = json!({"role": "assistant", "content": format!("I have seen {seen} messages.")});
    Json(json!({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let file = std::env::args().nth(2).unwrap_or_else(|| "sessions.db".to_owned());

    let store = SqliteStore::open(file).await?;
    println!("an acknowledged turn is worth: {}", store.durability().await?);
    let memory = SessionMemoryLayer::new(Cached::new(store.clone()));
    let commits = memory.commits();
    let app = Router::new().route("/v1/chat/completions", post(chat)).layer(memory);

    let listener = TcpListener::bind(addr).await?;
    println!("listening on {}", listener.local_addr()?);
    axum::serve(listener, app).with_graceful_shutdown(async { drop(tokio::signal::ctrl_c().await) }).await?;
    commits.drain(Duration::from_secs(10)).await;
    store.close().await;
    Ok(())
}
