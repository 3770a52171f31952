//! A store of one's own. [`store`] is the whole of it; what is here gives it to the layer. `tests/stores/custom.rs` checks
//! it against the contract.
//!
//! ```sh
//! cargo run --example custom_store -- 127.0.0.1:8080 sessions
//! ```

mod store;

use axum::{Json, Router, routing::post};
use serde_json::{Value, json};
use tower_session_memory::{
    SessionMemoryLayer,
    store::{HistoryStore, Retention},
};

use crate::store::FileStore;

async fn chat(Json(request): Json<Value>) -> Json<Value> {
    let seen = request["messages"].as_array().map_or(0, Vec::len);
    let message = json!({"role": "assistant", "content": format!("I have seen {seen} messages.")});
    Json(json!({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}))
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let directory = std::env::args().nth(2).unwrap_or_else(|| "sessions".to_owned());

    let store = FileStore::open(directory, Retention::new())?;
    let memory = SessionMemoryLayer::new(store.clone());
    let commits = memory.commits();
    let app = Router::new().route("/v1/chat/completions", post(chat)).layer(memory);

    let listener = tokio::net::TcpListener::bind(addr).await?;
    println!("listening on {}", listener.local_addr()?);
    axum::serve(listener, app).with_graceful_shutdown(async { drop(tokio::signal::ctrl_c().await) }).await?;
    commits.drain(std::time::Duration::from_secs(10)).await;
    store.close().await;
    Ok(())
}
