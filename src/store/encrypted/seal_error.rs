use crate::{
    history::RecordError,
    store::{StoreError, StoreErrorKind},
};

/// Why a record was not sealed or opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum SealError {
    #[error("a stored record is not encrypted")]
    Plain,
    #[error("a stored record does not name its key")]
    NoKey,
    #[error("a stored record is encrypted with the key {0}, which is not in the key ring")]
    UnknownKey(String),
    #[error("a stored record does not open with the key {0}: it was changed or moved, or the key is another")]
    Broken(String),
    #[error(transparent)]
    Record(RecordError),
    #[error("the stored turns do not stand in the order in which they were appended")]
    Misplaced,
    #[error("the record is too large to be encrypted")]
    TooLarge,
    #[error("the operating system gave no random bytes")]
    Randomness(#[source] getrandom::Error),
}

impl From<SealError> for StoreError {
    fn from(refused: SealError) -> Self {
        let kind = match refused {
            SealError::Record(error) => return error.into(),
            SealError::Plain | SealError::UnknownKey(_) => StoreErrorKind::Conflict,
            SealError::TooLarge => StoreErrorKind::TooLarge,
            SealError::Randomness(_) => StoreErrorKind::Unavailable,
            SealError::NoKey | SealError::Broken(_) | SealError::Misplaced => StoreErrorKind::Corrupt,
        };
        Self::with_source(kind, refused)
    }
}
