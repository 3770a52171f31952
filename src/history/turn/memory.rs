use std::mem;

use bytes::Bytes;

use super::{Entry, Header, Turn, envelope};

impl Turn {
    /// The same turn in memory of its own. A record may be a part of something larger, such as the whole answer
    /// of a store, which it would keep in memory.
    pub(crate) fn detached(&self) -> Self {
        let record = Bytes::copy_from_slice(&self.record);
        if self.header.envelope.is_some() {
            return Self { header: self.header.clone(), record, ..self.clone() };
        }
        // The messages end the record; one line feed stands between them and the instructions.
        let messages = record.len() - self.messages.len();
        let instructions = messages - 1 - self.instructions.len();
        Self {
            header: self.header.clone(),
            instructions: record.slice(instructions..messages - 1),
            messages: record.slice(messages..),
            record,
        }
    }

    /// Bytes of memory that a detached turn takes, without what the allocator adds.
    pub(crate) fn weight(&self) -> usize {
        let header = &*self.header;
        let optional = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let entries = header.instructions.iter().chain(&header.messages).map(Entry::weight);
        mem::size_of::<Self>()
            + mem::size_of::<Header>()
            + self.record.len()
            + BYTES_SHARED
            + header.v.len()
            + header.session.len()
            + optional(&header.finish_reason)
            + optional(&header.model)
            + header.usage.as_ref().map_or(0, |usage| usage.get().len())
            + header.envelope.as_ref().map_or(0, envelope::About::weight)
            + entries.sum::<usize>()
    }
}

impl Entry {
    fn weight(&self) -> usize {
        let calls = self.about.calls.iter().map(|call| mem::size_of::<String>() + call.len());
        mem::size_of::<Self>() + calls.sum::<usize>() + self.about.answers.as_ref().map_or(0, String::len)
    }
}

/// What `Bytes` allocates beside the bytes once they are shared, and the two counts of an `Arc`.
const BYTES_SHARED: usize = 5 * mem::size_of::<usize>();
