//! Refusals for a request to which the upstream gave no usable reply.

use std::{error::Error, time::Duration};

use http::StatusCode;

use super::{connect::TimedOut, unanswered::Unanswered};
use crate::{
    error::chain,
    traffic::{Refusal, Stalled},
};

/// No head of a reply came in time.
pub(super) fn no_head(limit: Duration) -> Refusal {
    tracing::warn!(?limit, "the upstream did not answer in time");
    Refusal::upstream(
        StatusCode::GATEWAY_TIMEOUT,
        "upstream_timeout",
        format!("the upstream did not begin to answer within {limit:?} (head_timeout)"),
    )
}

/// The upstream changed the protocol unasked.
pub(super) fn unasked_upgrade() -> Refusal {
    tracing::warn!("the upstream switched protocols unasked");
    Refusal::upstream(StatusCode::BAD_GATEWAY, "upstream_failed", "the upstream switched protocols unasked")
}

/// The upstream's reply is coded in a way that cannot be passed on.
pub(super) fn unknown_coding() -> Refusal {
    tracing::warn!("the upstream's reply has a transfer coding other than chunked");
    Refusal::upstream(
        StatusCode::BAD_GATEWAY,
        "upstream_failed",
        "the upstream's reply has a transfer coding other than chunked",
    )
}

/// The refusal for an error; only the log names the upstream's address.
pub(super) fn refusal(error: &Unanswered) -> Refusal {
    if let Some(stalled @ Stalled::Client(_)) = cause::<Stalled>(error) {
        return Refusal::invalid(StatusCode::REQUEST_TIMEOUT, stalled.to_string());
    }
    tracing::warn!(error = chain(error), "the upstream could not be asked");
    if let Some(timed_out) = cause::<TimedOut>(error) {
        let message = format!("{timed_out} (connect_timeout)");
        return Refusal::upstream(StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", message);
    }
    if error.is_unreached() {
        let message = "the upstream cannot be reached";
        return Refusal::upstream(StatusCode::BAD_GATEWAY, "upstream_unreachable", message);
    }
    let message = "the upstream ended the connection without an answer";
    Refusal::upstream(StatusCode::BAD_GATEWAY, "upstream_failed", message)
}

/// The first error of type `E` among an error and its causes.
fn cause<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}
