use std::{error::Error, fmt};

use crate::history::RecordError;

/// What a store could not do, and whether trying again may help.
///
/// Its text holds no address, credential, session id or message content; what the backend said is the
/// [`source`](Error::source).
#[derive(Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// The kinds of store errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// The store cannot be reached, or refuses for now. Nothing was done.
    Unavailable,
    /// No answer in time. Whether it was done is unknown.
    Timeout,
    /// The store answered with something that cannot be right.
    Corrupt,
    /// The store is set up in a way that contradicts the request, or a newer version of this program wrote what
    /// is asked for.
    Conflict,
    /// The record or the request is more than the store takes.
    TooLarge,
    /// Anything else.
    Other,
}

impl StoreError {
    /// An error without a cause.
    #[must_use]
    pub fn new(kind: StoreErrorKind) -> Self {
        Self { kind, source: None }
    }

    /// An error with the backend's own error as its source.
    #[must_use]
    pub fn with_source(kind: StoreErrorKind, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind, source: Some(source.into()) }
    }

    /// The error for callers of a call that an earlier attempt at it may have done.
    #[cfg(feature = "postgres")]
    pub(crate) fn perhaps_done(self) -> Self {
        Self { kind: StoreErrorKind::Timeout, ..self }
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, StoreErrorKind::Unavailable | StoreErrorKind::Timeout)
    }

    /// Whether the store answered with another session's record ([`RecordError::Foreign`]). Nothing of that
    /// record was given to the caller, and the layer counts it.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        let source = self.source.as_deref().and_then(|source| source.downcast_ref());
        matches!(source, Some(RecordError::Foreign))
    }
}

/// [`Conflict`](StoreErrorKind::Conflict) where a newer version wrote it, else
/// [`Corrupt`](StoreErrorKind::Corrupt).
impl From<RecordError> for StoreError {
    fn from(error: RecordError) -> Self {
        let kind = match &error {
            RecordError::Version(_) | RecordError::Layout(_) => StoreErrorKind::Conflict,
            _ => StoreErrorKind::Corrupt,
        };
        Self::with_source(kind, error)
    }
}

impl StoreErrorKind {
    /// The name in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Corrupt => "corrupt",
            Self::Conflict => "conflict",
            Self::TooLarge => "too_large",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            StoreErrorKind::Unavailable => "the session store is unavailable",
            StoreErrorKind::Timeout => "the session store did not answer in time",
            StoreErrorKind::Corrupt => "the session store holds something that cannot be right",
            StoreErrorKind::Conflict => "the session store is set up for something else",
            StoreErrorKind::TooLarge => "the session store does not take a record of this size",
            StoreErrorKind::Other => "the session store failed",
        })
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
