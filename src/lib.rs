//! Conversation memory for services that speak the OpenAI chat format: a Tower layer.
//!
//! Put [`SessionMemoryLayer`] around any HTTP service that speaks the format — a model server of your own,
//! a gateway, a client. A request that names a session (header `x-session-id`) needs to carry only what is
//! new; the inner service sees the whole conversation; the reply, JSON or streamed, is remembered in a store
//! that every replica shares.
//!
//! # Around an axum service
//!
//! ```no_run
//! use axum::{Json, Router, routing::post};
//! use serde_json::{Value, json};
//! use tower_session_memory::{SessionMemoryLayer, store::InMemoryStore};
//!
//! async fn model(Json(request): Json<Value>) -> Json<Value> {
//!     let seen = request["messages"].as_array().map_or(0, Vec::len);
//!     let message = json!({"role": "assistant", "content": format!("I have seen {seen} messages.")});
//!     Json(json!({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}))
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> std::io::Result<()> {
//! let app = Router::new()
//!     .route("/v1/chat/completions", post(model))
//!     .layer(SessionMemoryLayer::new(InMemoryStore::new()));
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! axum::serve(listener, app).await
//! # }
//! ```
//!
//! # Around an HTTP client
//!
//! ```
//! use http_body_util::Full;
//! use hyper_util::{client::legacy::Client, rt::TokioExecutor};
//! use tower::{Layer, ServiceBuilder};
//! use tower_session_memory::{RequestBody, SessionMemoryLayer, store::InMemoryStore};
//!
//! let client = Client::builder(TokioExecutor::new()).build_http::<RequestBody<Full<bytes::Bytes>>>();
//! let remembering = SessionMemoryLayer::new(InMemoryStore::new()).layer(client);
//! # let _ = remembering;
//! ```
//!
//! The [examples] go further: streamed replies, sessions on disk, an HTTP client at work, one's own authentication, and a
//! store of one's own.
//!
//! [examples]: https://docs.rs/crate/tower-session-memory/latest/source/examples/
//!
//! # What holds
//!
//! - When a client has received the last byte of a reply, its turn is stored; the next request, on any
//!   replica, sees it.
//! - A turn (the client's new messages and the reply) is stored whole or not at all, and once.
//! - The reply is the upstream's, byte for byte; the request is the client's, but for the inserted messages.
//! - A session belongs to the credential that created it.
//! - A tool call is never replayed without its results.
//! - Nothing happens in silence: the response header `session-memory` says what was done, and what came
//!   after the head is logged and counted.
//!
//! What a client sends is reconciled with what is stored: it may send only what is new, everything it
//! remembers, or an edited history.
//!
//! # Features
//!
//! None is on by default.
//!
//! | feature | what it adds |
//! |---|---|
//! | `cookies` | [`session::Cookie`](crate::session): session ids in cookies, plain and signed |
//! | `compression` | request bodies with `content-encoding` gzip, deflate, br, zstd; recording of compressed replies |
//! | `encrypt` | `store::Encrypted`: records encrypted at rest |
//! | `zstd` | `store::Compressed`: records compressed |
//! | `sqlite` | `store::SqliteStore`, with SQLite bundled |
//! | `redis` | `store::RedisStore`: one server, Cluster, Sentinel |
//! | `redis-tls` | TLS to Redis: `rediss…://` URLs |
//! | `postgres` | `store::PostgresStore` |
//! | `postgres-tls` | TLS to PostgreSQL, which every host but this machine asks for by default |
//! | `metrics` | counters and histograms through the `metrics` facade, named `session_memory_*` |
//! | `testing` | the store conformance suite and a scripted upstream |
//! | `proxy` | the `session-memory` binary, and all of the above |
//! | `import` | `proxy`, with the command `session-memory import` |
//!
//! # Response headers
//!
//! | header | value |
//! |---|---|
//! | `session-memory` | `hit` or `new` with `client`, `turns`, `messages`, `sent`, `store` (and `unrecorded=…` when the head already tells that the reply is not recorded); `bypass` or `degraded` with `reason` |
//! | `x-session-id` | the session's id |
//! | `cache-control` | `no-store`, unless the upstream set one |
//!
//! # Request controls
//!
//! The request header `session-memory` takes `off` (no memory), `read` (the history is supplied, nothing is
//! recorded), `append` (everything after the instructions is new, even assistant messages) and `reset` (the
//! conversation starts again; the log keeps what was).

#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(clippy::print_stderr, clippy::print_stdout)]

/// The README's code compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod body;
mod commit;
mod config;
mod exchange;
mod failpoint;
mod future;
mod layer;
mod lookup;
mod reconcile;
mod service;
mod telemetry;
mod view;

pub mod history;
pub mod protocol;
pub mod session;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;

pub use body::{BoxError, ReplyWithheld, RequestBody, ResponseBody};
pub use commit::{AppendQueue, Commits, DrainReport, Observer};
pub use config::{Limits, OnAppendError, OnDisconnect, OnLoadError, OnMissing};
pub use exchange::{Decision, Remembered};
pub use future::ResponseFuture;
pub use layer::SessionMemoryLayer;
pub use reconcile::Instructions;
pub use service::SessionMemory;
pub use view::{Recipe, Window};

/// The engine, for this project's own benchmarks, fuzz targets and importers. It changes without notice.
#[doc(hidden)]
pub mod unstable {
    pub use crate::{
        lookup::{Found, Lookup, Question},
        reconcile::{Incoming, Mode, Plan, reconcile},
        view::valid,
    };

    /// The place on the path of the first turn that the window sends.
    #[must_use]
    pub fn window_start(window: crate::Window, path: &crate::history::Path<'_>) -> usize {
        window.start(path)
    }
}
