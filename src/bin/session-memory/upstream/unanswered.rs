//! Error of either client of the upstream.

use hyper_util::client::legacy;

use super::http1;

/// Error of a request to which the upstream gave no head of a reply.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    #[error(transparent)]
    Plain(#[from] http1::Http1Error),
    #[error(transparent)]
    Pooled(#[from] legacy::Error),
}

impl Unanswered {
    /// Whether no connection to the upstream could be opened.
    pub(super) fn is_unreached(&self) -> bool {
        match self {
            Self::Plain(error) => matches!(error, http1::Http1Error::Connect(_)),
            Self::Pooled(error) => error.is_connect(),
        }
    }
}
