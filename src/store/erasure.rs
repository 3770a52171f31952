use super::{Page, StoreError, StoreErrorKind};

/// What one step of an erasure did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Erased {
    /// Sessions that were erased.
    pub sessions: u64,
    /// Records that they held.
    pub records: u64,
    /// Bytes of these records.
    pub bytes: u64,
    /// What [`Page::after`](super::Page::after) takes to go on; opaque. `None` when nothing is left.
    pub next: Option<String>,
}

impl Erased {
    /// Sessions that one step erases at most. A store holds no lock and no transaction over more of them.
    pub const MAX_SESSIONS: usize = 64;

    /// Records after which a step takes no further session.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(crate) const ENOUGH_RECORDS: u64 = 512;

    /// The number of sessions that a step of this page erases at most.
    pub(super) fn sessions_of(page: &Page) -> usize {
        page.size().min(Self::MAX_SESSIONS)
    }

    /// Counts one more session.
    pub fn add(&mut self, records: u64, bytes: u64) {
        self.sessions += 1;
        self.records += records;
        self.bytes += bytes;
    }
}

/// What names the step that follows in a store that finds by itself what is left.
pub(super) const FURTHER: &str = "further";

/// Refuses a page that no step named, where the only one that is named is [`FURTHER`].
pub(super) fn is_first_or_further(page: &Page) -> Result<(), StoreError> {
    match page.after.as_deref() {
        None | Some(FURTHER) => Ok(()),
        Some(_) => Err(StoreError::with_source(StoreErrorKind::Other, UnknownPage)),
    }
}

/// The place in an order of numbers that a page begins after; `first` for the first page.
pub(super) fn place(page: &Page, first: u64) -> Result<u64, StoreError> {
    let place = page.after.as_deref().map_or(Ok(first), str::parse);
    place.map_err(|_| StoreError::with_source(StoreErrorKind::Other, UnknownPage))
}

/// A page was asked for that no answer named.
#[derive(Debug, thiserror::Error)]
#[error("the page is none that an earlier answer named")]
pub(super) struct UnknownPage;
