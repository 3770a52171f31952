use super::{Cursor, Epoch, Records};
use crate::history::Record;

/// Which part of a log a [load](super::HistoryStore::load) answers.
///
/// An `Option<&Cursor>` is one, too: `store.load(&key, None)`, `store.load(&key, Some(&cursor))`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct LoadOptions {
    /// The place that the caller knows; `None`: nothing of the log.
    pub after: Option<Cursor>,
}

impl LoadOptions {
    /// The whole log.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Only what came after this place.
    #[must_use]
    pub fn with_after(mut self, after: Cursor) -> Self {
        self.after = Some(after);
        self
    }
}

impl From<Option<&Cursor>> for LoadOptions {
    fn from(after: Option<&Cursor>) -> Self {
        Self { after: after.copied() }
    }
}

/// The answer to a load.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Loaded {
    /// Where the log ends now.
    pub cursor: Cursor,
    /// The records after the cursor that was asked for, or all of them.
    pub records: Records,
    /// Whether `records` begins at the start of the log.
    pub from_start: bool,
    /// The number of records at the start of the log that are kept no more; 0 for an unknown session. From the start,
    /// `records` holds the `cursor.count - trimmed` that are kept.
    pub trimmed: u64,
}

impl Loaded {
    /// All records that are kept of a log that ends at this cursor.
    #[must_use]
    pub fn whole(cursor: Cursor, records: impl Into<Records>) -> Self {
        let records = records.into();
        let trimmed = cursor.count.saturating_sub(records.len() as u64);
        Self { cursor, records, from_start: true, trimmed }
    }

    /// Only the records after the cursor that was asked for, of a log that ends at this one and that keeps its first
    /// `trimmed` records no more.
    #[must_use]
    pub fn since(cursor: Cursor, records: impl Into<Records>, trimmed: u64) -> Self {
        Self { cursor, records: records.into(), from_start: false, trimmed }
    }

    /// What a session answers that has neither log nor tombstone.
    #[must_use]
    pub fn unknown(after: Option<&Cursor>) -> Self {
        let cursor = Cursor::start_of(Epoch::UNBORN);
        Self { from_start: after != Some(&cursor), ..Self::whole(cursor, Vec::new()) }
    }
}

/// Which part of a log a [read](super::HistoryStore::read) answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadOptions {
    /// The number of records to pass over, from the log's first on, trimmed ones included.
    pub from: u64,
    /// The largest number of records; at least 1. Default: 1,000.
    pub max_records: usize,
    /// The largest sum of their bytes; the first record may have more. Default: 8 MiB.
    pub max_bytes: u64,
}

impl ReadOptions {
    /// Records after the first `from` ones.
    #[must_use]
    pub fn new(from: u64) -> Self {
        Self { from, max_records: 1000, max_bytes: 8 * 1024 * 1024 }
    }

    /// At most this number of records. Default: 1,000.
    #[must_use]
    pub fn with_max_records(mut self, records: usize) -> Self {
        self.max_records = records.max(1);
        self
    }

    /// At most this number of bytes, unless the first record has more. Default: 8 MiB.
    #[must_use]
    pub fn with_max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Whether a page that holds this number of records and bytes takes one more record of this size.
    #[must_use]
    pub fn takes(&self, records: usize, bytes: u64, more: u64) -> bool {
        records == 0 || (records < self.max_records && bytes.saturating_add(more) <= self.max_bytes)
    }
}

/// The answer to a read.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RecordPage {
    /// Where the log ends now. An epoch that differs from an earlier page's says that the session was erased meanwhile.
    pub cursor: Cursor,
    /// The number of records before the first of these.
    pub first: u64,
    /// The records, oldest first.
    pub records: Vec<Record>,
    /// What [`ReadOptions::from`] takes to go on; `None` at the log's end.
    pub next: Option<u64>,
}

impl RecordPage {
    /// What a session answers that has no log.
    #[must_use]
    pub fn unknown() -> Self {
        Self::new(Cursor::start_of(Epoch::UNBORN), 0, Vec::new())
    }

    /// Records of a log that ends at this cursor; `first` of its records stand before them.
    #[must_use]
    pub fn new(cursor: Cursor, first: u64, records: Vec<Record>) -> Self {
        let end = first.saturating_add(records.len() as u64);
        let next = Some(end).filter(|end| *end < cursor.count);
        Self { cursor, first, records, next }
    }
}
