//! The stage between load and view that may wait.
//!
//! A lookup fetches what a request is shown beside its session's own path: from an index, or from a server. The lookups
//! of a request run one after the other and share one time limit. Past the limit the request goes on with what was found
//! before. What was found is left out of a request that goes upstream as it was sent, and of one that it would make larger
//! than the limit of the history. No lookup is listed by default, and a request then waits for nothing.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use crate::{history::Log, protocol::Draft, session::SessionKey, telemetry};

/// Default time limit of all lookups of a request.
pub(crate) const LOOKUP_TIMEOUT: Duration = Duration::from_millis(50);

/// What a lookup found, when it is there.
pub type Found<'a> = Pin<Box<dyn Future<Output = Vec<Bytes>> + Send + 'a>>;

/// Source of items that a request is shown before its session's path.
pub trait Lookup: Send + Sync + 'static {
    /// Name in logs and metrics: one lower-case token.
    fn name(&self) -> &'static str;

    /// Groups of raw items in the request's format, joined by single commas.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped at the time limit, and when the client leaves.
    fn look_up<'a>(&'a self, question: Question<'a>) -> Found<'a>;
}

/// What a lookup may go by.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Question<'a> {
    /// The session.
    pub key: &'a SessionKey,
    /// What was said in it.
    pub log: &'a Log,
    /// What the client says now.
    pub draft: &'a Draft,
}

/// What all lookups found in time, in their order.
pub(crate) async fn look_up(
    lookups: &[Arc<dyn Lookup>],
    timeout: Duration,
    question: Question<'_>,
) -> Vec<Bytes> {
    let mut found = Vec::new();
    let limit = Instant::now() + timeout;
    for lookup in lookups {
        match timeout_at(limit, lookup.look_up(question)).await {
            Ok(groups) => found.extend(groups),
            Err(_) => telemetry::lookup_timed_out(lookup.name(), question.key),
        }
    }
    found
}
