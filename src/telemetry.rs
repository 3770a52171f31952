//! What operators see: log events and metrics. Nothing here carries message content, a credential or a
//! session id; sessions appear as the first eight digits of their key's digest.

use std::time::Duration;

use tracing::{debug, error, info, warn};

use crate::{
    history::RecordId,
    protocol::Skip,
    session::SessionKey,
    store::{Appended, StoreError},
};

/// The name that OpenTelemetry's semantic conventions give to the session.
const CONVERSATION: &str = "gen_ai.conversation.id";

/// Adds to a counter. Without the feature `metrics` it costs nothing; with labels that are literals, no allocation.
macro_rules! count {
    ($name:literal, $key:literal => $value:literal) => {
        #[cfg(feature = "metrics")]
        metrics::counter!($name, $key => $value).increment(1);
    };
    ($name:literal $(, $key:literal => $value:expr)*) => {
        #[cfg(feature = "metrics")]
        metrics::counter!($name $(, $key => $value)*).increment(1);
        #[cfg(not(feature = "metrics"))]
        { $(let _ = &$value;)* }
    };
}

macro_rules! record {
    ($name:literal, $seconds:expr) => {
        #[cfg(feature = "metrics")]
        metrics::histogram!($name).record($seconds);
        #[cfg(not(feature = "metrics"))]
        {
            let _ = $seconds;
        }
    };
}

/// The span of one exchange.
pub(crate) fn span(key: &SessionKey) -> tracing::Span {
    tracing::debug_span!("session_memory", { CONVERSATION } = %key.digest())
}

/// A request was taken up; `client` is how it relates to the history.
pub(crate) fn request(status: &'static str, client: &'static str) {
    count!("session_memory_requests_total", "status" => status, "client" => client);
}

/// A request with a session was forwarded without memory.
pub(crate) fn bypassed(status: &'static str, reason: &'static str) {
    count!("session_memory_bypassed_total", "status" => status, "reason" => reason);
    info!(status, reason, "forwarded without memory");
}

/// A request was answered by the layer itself.
pub(crate) fn rejected(code: &'static str) {
    count!("session_memory_rejected_total", "code" => code);
    match code {
        // There are many of these at once, and each line would add to what there is too much of.
        "overloaded" => debug!(code, "request rejected"),
        _ => info!(code, "request rejected"),
    }
}

pub(crate) fn loaded(elapsed: Duration, turns: usize) {
    record!("session_memory_load_seconds", elapsed.as_secs_f64());
    debug!(turns, elapsed_us = elapsed.as_micros() as u64, "history loaded");
}

/// A history is loaded although a turn of its session is still being stored.
pub(crate) fn unsettled(key: &SessionKey) {
    count!("session_memory_unsettled_total");
    warn!({ CONVERSATION } = %key.digest(), "the history is loaded without a turn that is still being stored");
}

/// The upstream was sent less than the whole conversation: the window was full, or a tool call unanswered.
pub(crate) fn trimmed(messages: usize) {
    count!("session_memory_trimmed_total");
    debug!(messages, "the oldest messages, or those of an unanswered tool call, were left out");
}

/// The reply to a request with a session is not recorded, as its head already tells.
pub(crate) fn not_recorded(reason: &'static str) {
    count!("session_memory_unrecorded_total", "reason" => reason);
    debug!(reason, "reply not recorded");
}

/// A reply gave no turn.
pub(crate) fn skipped(key: &SessionKey, skip: Skip) {
    count!("session_memory_unrecorded_total", "reason" => skip.as_str());
    warn!({ CONVERSATION } = %key.digest(), reason = skip.as_str(), "reply not recorded: {skip}");
}

/// The upstream broke off; nothing is stored.
pub(crate) fn broken(key: &SessionKey) {
    count!("session_memory_unrecorded_total", "reason" => "upstream_broke");
    warn!({ CONVERSATION } = %key.digest(), reason = "upstream_broke", "reply not recorded: the upstream broke off");
}

/// The client left before the end.
pub(crate) fn disconnected(key: &SessionKey, kept: bool) {
    count!("session_memory_disconnects_total", "kept" => if kept { "true" } else { "false" });
    debug!({ CONVERSATION } = %key.digest(), kept, "the client left before the reply's end");
}

/// The store has answered an append.
pub(crate) fn committed(key: &SessionKey, appended: Appended, elapsed: Duration) {
    let outcome = match appended {
        Appended::Appended { .. } => {
            count!("session_memory_turns_total", "outcome" => "stored");
            "stored"
        }
        Appended::AlreadyThere(_) => {
            count!("session_memory_turns_total", "outcome" => "already_there");
            "already_there"
        }
        Appended::Gone => {
            count!("session_memory_turns_total", "outcome" => "gone");
            "gone"
        }
    };
    record!("session_memory_commit_seconds", elapsed.as_secs_f64());
    if appended == Appended::Gone {
        warn!({ CONVERSATION } = %key.digest(), "a turn was not stored: its session was deleted, or its parent is gone");
    } else {
        debug!(outcome, elapsed_us = elapsed.as_micros() as u64, "turn committed");
    }
}

/// The end of a reply went out, or was cut, before its turn was acknowledged.
pub(crate) fn unacknowledged(key: &SessionKey, delivered: bool) {
    let delivered_label = if delivered { "true" } else { "false" };
    count!("session_memory_unacknowledged_total", "delivered" => delivered_label);
    warn!({ CONVERSATION } = %key.digest(), delivered, "the turn was not stored within the commit wait");
}

pub(crate) fn lost(key: &SessionKey, turn: RecordId, reason: &'static str) {
    count!("session_memory_turns_total", "outcome" => "lost");
    error!({ CONVERSATION } = %key.digest(), turn = %turn, reason, "a turn could not be stored and is lost");
}

pub(crate) fn store_failed(operation: &'static str, key: &SessionKey, error: &StoreError) {
    let kind = error.kind().as_str();
    count!("session_memory_store_errors_total", "operation" => operation, "kind" => kind);
    if error.is_foreign() {
        count!("session_memory_foreign_records_total", "operation" => operation);
        error!({ CONVERSATION } = %key.digest(), operation, "the session store answered with another session's record");
    }
    let source = std::error::Error::source(error).map(tracing::field::display);
    warn!({ CONVERSATION } = %key.digest(), operation, kind, source, "the session store failed");
}

pub(crate) fn store_timed_out(operation: &'static str, key: &SessionKey) {
    count!("session_memory_store_errors_total", "operation" => operation, "kind" => "timeout");
    warn!({ CONVERSATION } = %key.digest(), operation, kind = "timeout", "the session store did not answer in time");
}

/// A request goes on without what a lookup would have found.
pub(crate) fn lookup_timed_out(lookup: &'static str, key: &SessionKey) {
    count!("session_memory_lookup_timeouts_total", "lookup" => lookup);
    warn!({ CONVERSATION } = %key.digest(), lookup, "the lookup did not answer in time");
}

/// An event did not reach the observers, since too many wait for them.
pub(crate) fn unobserved() {
    count!("session_memory_observer_dropped_total");
    warn!("an event did not reach the observers: 1,024 events wait for them");
}

/// Assembling the reply panicked; it was forwarded all the same.
pub(crate) fn recorder_panicked(key: &SessionKey) {
    count!("session_memory_unrecorded_total", "reason" => "panic");
    error!({ CONVERSATION } = %key.digest(), "recording a reply panicked; the reply was forwarded unrecorded");
}
