//! The real binary on every store: one suite, and a place in each kind of store to run it on.
//!
//! The servers are started here (`tests/common/servers`): one of each kind for all tests, and others for tests that want
//! one for themselves. `SESSION_MEMORY_TURNS` sets how much `replicas` and `cache` do, `SESSION_MEMORY_SEED`
//! repeats what they did by chance.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "a test binary exports nothing")]
#![allow(clippy::print_stdout, reason = "the counts are the result")]

#[path = "../common/mod.rs"]
mod common;
#[macro_use]
mod own;
#[macro_use]
mod place;

mod cache;
mod durability;
mod reconcile;
mod records;
mod replicas;
mod schema;
mod sealed;
mod secrets;
mod sequences;
mod versions;

use std::time::Duration;

use common::{Answer, servers, turns, within};

/// The 200 of a proxy whose store is well, and on a busy machine may at first take longer than its limit.
async fn served(ask: impl AsyncFn() -> Answer) -> Answer {
    within("the store to be quick enough", async {
        loop {
            let answer = ask().await;
            if answer.status != 503 {
                return answer.ok();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}
