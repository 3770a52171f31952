//! The session and its owner come from your own authentication, not from a header.
//!
//! ```sh
//! cargo run --example custom_session -- 127.0.0.1:8080
//! curl -sH 'content-type: application/json' -H 'authorization: Bearer alice' \
//!     -d '{"messages":[{"role":"user","content":"Hello"}]}' http://127.0.0.1:8080/v1/chat/completions
//! ```

use axum::{
    Json, Router, extract::Request, http::StatusCode, middleware, response::IntoResponse, routing::post,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower_session_memory::{
    SessionMemoryLayer,
    session::{Principal, SessionId},
    store::InMemoryStore,
};

/// Stands for your authentication: identifies the user, and keeps one conversation for each.
async fn authenticate(mut request: Request, next: middleware::Next) -> axum::response::Response {
    let token = request.headers().get("authorization").and_then(|value| value.to_str().ok());
    let Some(user) = token.and_then(|token| token.strip_prefix("Bearer ")).map(str::to_owned) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    let Ok(session) = "assistant".parse::<SessionId>() else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    request.extensions_mut().insert(Principal::new(user));
    request.extensions_mut().insert(session);
    next.run(request).await
}

async fn chat(Json(request): Json<Value>) -> Json<Value> {
    let seen = request["messages"].as_array().map_or(0, Vec::len);
    let message = json!({"role": "assistant", "content": format!("I have seen {seen} messages.")});
    Json(json!({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}))
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let app = Router::new()
        .route("/v1/chat/completions", post(chat))
        .layer(SessionMemoryLayer::new(InMemoryStore::new()))
        .layer(middleware::from_fn(authenticate)); // the last one added is the outermost
    let listener = TcpListener::bind(addr).await?;
    println!("listening on {}", listener.local_addr()?);
    axum::serve(listener, app).await
}
