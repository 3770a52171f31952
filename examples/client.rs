//! The memory around an HTTP client: the program sends its newest message only, the server sees the conversation.
//!
//! ```sh
//! cargo run --example client -- 127.0.0.1:11434 'My name is Ada.' 'What is my name?'
//! ```

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
use tower_session_memory::{RequestBody, SessionMemoryLayer, session::SessionId, store::InMemoryStore};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mut arguments = std::env::args().skip(1);
    let server = arguments.next().ok_or("the first argument is the server: 127.0.0.1:11434")?;

    let client = Client::builder(TokioExecutor::new()).build_http::<RequestBody<Full<Bytes>>>();
    let mut client =
        ServiceBuilder::new().layer(SessionMemoryLayer::new(InMemoryStore::new())).service(client);

    let session = SessionId::random()?;
    for text in arguments {
        let body = json!({"model": "any", "messages": [{"role": "user", "content": text}]});
        let request = Request::post(format!("http://{server}/v1/chat/completions"))
            .header(header::CONTENT_TYPE, "application/json")
            .extension(session.clone())
            .body(Full::from(body.to_string()))?;
        let response = client.ready().await?.call(request).await?;
        // The turn is stored when the body has been read to its end.
        let body: Value = serde_json::from_slice(&response.into_body().collect().await?.to_bytes())?;
        println!("{}", body["choices"][0]["message"]["content"].as_str().unwrap_or_default());
    }
    Ok(())
}
