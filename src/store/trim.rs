//! What goes first when a log is past its bounds, and what a store reads of a record for it.
//!
//! A log may begin only with a record that opens an exchange: one that begins with the result of a tool call belongs to
//! the record before it. So the oldest records go in whole exchanges, until the rest is within the bounds or only
//! the newest exchange is left. A store keeps the place of the newest record that opens one: nothing behind it ever goes,
//! and each record that is looked at on the way there goes, so that trimming costs what it removes.

use std::convert::Infallible;

use super::Retention;
use crate::history::{Record, Turn};

/// Whether a log may begin with this record.
pub(crate) fn opens_exchange(record: &Record) -> bool {
    !record.continues_exchange()
}

/// The model that a record names, for listings.
pub(crate) fn model(record: &Record) -> Option<&str> {
    record.turn().and_then(Turn::model).map(clipped)
}

/// The title that a record gives, for listings.
pub(crate) fn title(record: &Record) -> Option<&str> {
    record.turn().and_then(Turn::title).map(clipped)
}

/// Names come from elsewhere and may have any length.
pub(crate) fn clipped(name: &str) -> &str {
    if name.len() <= LONGEST_NAME {
        return name;
    }
    let end = (0..=LONGEST_NAME).rev().find(|end| name.is_char_boundary(*end));
    &name[..end.unwrap_or(0)]
}

/// In bytes.
const LONGEST_NAME: usize = 256;

/// A log that may be past its bounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeptRecords {
    /// Records that it holds.
    pub(crate) records: u64,
    /// Bytes of these.
    pub(crate) bytes: u64,
    /// The number of records before the newest that opens an exchange.
    pub(crate) before_newest_exchange: u64,
}

/// The oldest records that go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Excess {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

impl KeptRecords {
    /// What goes by these bounds. `look` answers the bytes of a record, and whether it opens an exchange, by the number of
    /// records before it. It is asked from the oldest on, for each record at most twice in a row.
    pub(crate) fn excess<E>(
        &self,
        retention: &Retention,
        mut look: impl FnMut(u64) -> Result<(u64, bool), E>,
    ) -> Result<Excess, E> {
        let mut gone = Excess::default();
        while gone.records < self.before_newest_exchange
            && retention.is_exceeded_by(self.records - gone.records, self.bytes.saturating_sub(gone.bytes))
        {
            loop {
                gone.bytes += look(gone.records)?.0;
                gone.records += 1;
                if gone.records == self.before_newest_exchange || look(gone.records)?.1 {
                    break;
                }
            }
        }
        Ok(gone)
    }
}

impl Retention {
    /// The number of the oldest records of a log that are past its bounds: whole tool exchanges, and never the newest
    /// one. For stores that have all records of the log at hand.
    #[must_use]
    pub fn excess(&self, log: &[Record]) -> usize {
        let look = |record: &Record| (record.bytes().len() as u64, opens_exchange(record));
        let kept = KeptRecords {
            records: log.len() as u64,
            bytes: log.iter().map(|record| look(record).0).sum(),
            before_newest_exchange: log.iter().rposition(opens_exchange).unwrap_or(0) as u64,
        };
        let Ok(excess) = kept.excess(self, |at| Ok::<_, Infallible>(look(&log[at as usize])));
        excess.records as usize
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    /// Records as their sizes; a negative one belongs to the record before it.
    fn excess(log: &[i64], turns: usize, bytes: u64) -> u64 {
        let retention = Retention::new().with_max_turns(NonZeroUsize::new(turns)).with_max_bytes(Some(bytes));
        let kept = KeptRecords {
            records: log.len() as u64,
            bytes: log.iter().map(|size| size.unsigned_abs()).sum(),
            before_newest_exchange: log.iter().rposition(|size| *size > 0).unwrap() as u64,
        };
        let look = |at: u64| {
            let size = log[at as usize];
            Ok::<_, Infallible>((size.unsigned_abs(), size > 0))
        };
        kept.excess(&retention, look).unwrap().records
    }

    #[test]
    fn the_oldest_go_in_whole_exchanges() {
        assert_eq!(excess(&[10, 10, 10], 3, 30), 0);
        assert_eq!(excess(&[10, 10, 10], 2, 30), 1);
        assert_eq!(excess(&[10, 10, 10], 3, 29), 1);
        assert_eq!(excess(&[10, 10, 10], 3, 1), 2, "the newest stays, however large");
        assert_eq!(excess(&[10, -10, -10, 10, 10], 4, 1000), 3, "what begins with a result goes along");
        assert_eq!(excess(&[10, 10, -10, -10], 2, 1000), 1, "the newest exchange stays whole");
        assert_eq!(excess(&[10, -10, -10], 1, 1), 0);
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        assert_eq!(clipped("gpt"), "gpt");
        assert_eq!(clipped(&"ä".repeat(200)).len(), 256);
        assert_eq!(clipped(&format!("x{}", "ä".repeat(200))).len(), 255);
    }
}
