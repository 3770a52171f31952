//! What was decided of each request, read by an outer layer and by an observer.
//!
//! ```sh
//! cargo run --example decision -- 127.0.0.1:8080
//! ```

use axum::{
    Json, Router,
    extract::Request,
    middleware::{self, Next},
    response::Response,
    routing::post,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower_session_memory::{
    Decision, Observer, SessionMemoryLayer, history::Record, session::SessionKey, store::InMemoryStore,
};

/// Stands outside of the memory: the decision is in the response's extensions.
async fn report(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let decided = match response.extensions().get::<Decision>() {
        Some(Decision::Remembered(remembered)) => {
            format!("{} of {} messages were sent", remembered.sent, remembered.items)
        }
        Some(other) => format!("{} without memory", other.word()),
        None => "no session".to_owned(),
    };
    if let Ok(value) = decided.parse() {
        response.headers_mut().insert("x-decided", value);
    }
    response
}

/// Sees every commit of this replica, off the request path.
struct Printed;

impl Observer for Printed {
    fn committed(&self, key: &SessionKey, record: &Record) {
        println!("stored {} in session {}", record.id(), key.digest());
    }
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
        .layer(SessionMemoryLayer::new(InMemoryStore::new()).with_observer(Printed))
        .layer(middleware::from_fn(report)); // the last one added is the outermost
    let listener = TcpListener::bind(addr).await?;
    println!("listening on {}", listener.local_addr()?);
    axum::serve(listener, app).await
}
