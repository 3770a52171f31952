//! A wrapper around a store, which counts the bytes that are appended. A store of your own implements the
//! same methods; `testing::conformance` (feature `testing`) checks it.
//!
//! ```sh
//! cargo run --example custom_store -- 127.0.0.1:8080
//! ```

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use axum::{Json, Router, routing::post};
use serde_json::{Value, json};
use tower_session_memory::{
    SessionMemoryLayer,
    history::Record,
    session::SessionKey,
    store::{
        Appended, Cursor, HistoryStore, InMemoryStore, LoadOptions, Loaded, Page, Scope, SessionPage,
        StoreError,
    },
};

struct Counted<S>(S, AtomicU64);

impl<S: HistoryStore> HistoryStore for Counted<S> {
    async fn load(
        &self,
        key: &SessionKey,
        options: impl Into<LoadOptions> + Send,
    ) -> Result<Loaded, StoreError> {
        self.0.load(key, options).await
    }
    async fn append(&self, key: &SessionKey, at: &Cursor, turn: &Record) -> Result<Appended, StoreError> {
        let bytes = self.1.fetch_add(turn.bytes().len() as u64, Relaxed) + turn.bytes().len() as u64;
        println!("appended {bytes} bytes so far");
        self.0.append(key, at, turn).await
    }
    async fn sessions(&self, scope: &Scope, page: &Page) -> Result<SessionPage, StoreError> {
        self.0.sessions(scope, page).await
    }
    fn name(&self) -> &'static str {
        "counted"
    }

    tower_session_memory::delegate_history_store!(
        |this| this.0;
        read, delete, principals, delete_principal, expire, durability, close
    );
}

async fn chat(Json(request): Json<Value>) -> Json<Value> {
    let message = json!({"role": "assistant", "content": request["messages"].to_string()});
    Json(json!({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}))
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let memory = SessionMemoryLayer::new(Counted(InMemoryStore::new(), AtomicU64::new(0)));
    let listener = tokio::net::TcpListener::bind(addr).await?;
    println!("listening on {}", listener.local_addr()?);
    axum::serve(listener, Router::new().route("/v1/chat/completions", post(chat)).layer(memory)).await
}
