//! What the tests of the real binary share: the process, a raw HTTP/1.1 client, and a look into its store.
//!
//! Every wait has the same generous limit ([`LIMIT`]), so that a hang is a failure and not a stuck run. No
//! test asserts on time.

#![allow(dead_code, unused_imports, reason = "each test binary uses its own part")]
#![allow(unreachable_pub, missing_docs, reason = "a test binary exports nothing")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "seeds and counts are printed")]

pub mod client;
pub mod http2;
pub mod messages;
pub mod process;
pub mod proxy;
pub mod random;
pub mod servers;
pub mod store;
pub mod turns;
pub mod wait;
pub mod wire;

use std::time::Duration;

pub use client::{Answer, End, Exchange, Post};
pub use messages::{assistant, body, calls, result, stream_body, system, texts, user};
pub use proxy::{Launch, Proxy};
use serde_json::json;
pub use store::Stored;
pub use tower_session_memory::testing::upstream::{Chunk, Gate, Reply, Seen, Step, Upstream, echo};
pub use wait::{LIMIT, within};

/// Waits until the store holds `count` turns of this session, and gives them.
pub async fn stored_turns(proxy: &Proxy, session: &str, count: usize) -> Vec<Stored> {
    within("the turns to be stored", async {
        loop {
            let turns = proxy.stored(session).await;
            if turns.len() >= count {
                assert_eq!(turns.len(), count, "more turns than expected: {turns:?}");
                return turns;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

/// A scripted upstream and the proxy in front of it, with a store of its own.
pub async fn pair() -> (Upstream, Proxy) {
    pair_with(|launch| launch).await
}

/// The same, with other settings.
pub async fn pair_with(change: impl FnOnce(Launch) -> Launch) -> (Upstream, Proxy) {
    let upstream = Upstream::start().await.unwrap();
    let proxy = change(Launch::new(&upstream.url())).start().await;
    (upstream, proxy)
}

/// A model that adds with the tool `add`, refuses an invalid history, and otherwise echoes.
pub fn adder(seen: &Seen) -> Reply {
    let refusal = tower_session_memory::testing::upstream::refuse_unanswered_calls(seen);
    if !refusal.status.is_success() {
        return refusal;
    }
    let messages = seen.messages();
    let stream = seen.json()["stream"] == true;
    match messages.last() {
        Some(last) if last["content"] == "2 + 3?" && stream => {
            Reply::stream_tool_call("call_add", "add", "{\"a\":2,\"b\":3}")
        }
        Some(last) if last["content"] == "2 + 3?" => {
            // What the official clients echo and other servers refuse: nulls, an index, annotations.
            let call = json!({"index": 0, "id": "call_add", "type": "function",
                "function": {"name": "add", "arguments": "{\"a\":2,\"b\":3}"}});
            Reply::message(&json!({"role": "assistant", "content": null, "refusal": null, "annotations": [],
                "tool_calls": [call]}))
        }
        Some(last) if last["role"] == "tool" => {
            let text = format!("It is {}.", last["content"].as_str().unwrap_or_default());
            if stream { Reply::stream(&text) } else { Reply::text(&text) }
        }
        _ => echo(seen),
    }
}
