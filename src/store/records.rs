use std::{
    fmt,
    ops::Deref,
    sync::{Arc, LazyLock},
};

use crate::history::{Log, Record};

/// The turns that a store answers, in commit order. It dereferences to a slice.
///
/// Made of a `Vec`, or a part of a log that the store keeps: then it is as cheap as an `Arc`, however long the
/// log is.
#[derive(Clone, Default)]
pub struct Records {
    /// Empty where they are shared.
    listed: Vec<Record>,
    /// A log, and the place from which on its turns are these.
    shared: Option<(Arc<Log>, usize)>,
}

/// The log of every session that has none.
static NOTHING: LazyLock<Arc<Log>> = LazyLock::new(Arc::default);

impl Records {
    /// The turns of a log from this place on.
    pub(crate) fn shared(log: Arc<Log>, from: usize) -> Self {
        Self { listed: Vec::new(), shared: Some((log, from)) }
    }

    /// Whether one of them is an [envelope](Record::envelope).
    #[cfg(feature = "zstd")]
    pub(crate) fn hold_envelopes(&self) -> bool {
        match &self.shared {
            Some((log, _)) => log.holds_envelopes(),
            None => self.listed.iter().any(|turn| turn.envelope().is_some()),
        }
    }

    /// The turns as a list of their own, to be changed.
    pub fn to_mut(&mut self) -> &mut Vec<Record> {
        if let Some((log, from)) = self.shared.take() {
            self.listed = log.records()[from..].to_vec();
        }
        &mut self.listed
    }

    /// These turns as a log. It takes no time if they are all of a log that is shared.
    #[must_use]
    pub fn into_log(self) -> Arc<Log> {
        match self.shared {
            Some((log, 0)) => log,
            Some((log, from)) => Arc::new(log.records()[from..].iter().cloned().collect()),
            None if self.listed.is_empty() => Arc::clone(&NOTHING),
            None => Arc::new(self.listed.into_iter().collect()),
        }
    }
}

impl Deref for Records {
    type Target = [Record];

    fn deref(&self) -> &[Record] {
        self.shared.as_ref().map_or(&self.listed, |(log, from)| &log.records()[*from..])
    }
}

impl From<Vec<Record>> for Records {
    fn from(listed: Vec<Record>) -> Self {
        Self { listed, shared: None }
    }
}

impl FromIterator<Record> for Records {
    fn from_iter<I: IntoIterator<Item = Record>>(turns: I) -> Self {
        Vec::from_iter(turns).into()
    }
}

impl From<Records> for Vec<Record> {
    fn from(mut turns: Records) -> Self {
        std::mem::take(turns.to_mut())
    }
}

impl IntoIterator for Records {
    type Item = Record;
    type IntoIter = std::vec::IntoIter<Record>;

    fn into_iter(self) -> Self::IntoIter {
        Vec::from(self).into_iter()
    }
}

impl<'a> IntoIterator for &'a Records {
    type Item = &'a Record;
    type IntoIter = std::slice::Iter<'a, Record>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}
