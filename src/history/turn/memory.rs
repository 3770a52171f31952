use std::{mem, sync::Arc};

use bytes::Bytes;

use super::{Decoded, Entry, Header, Turn, envelope};

impl Turn {
    /// The same turn in memory of its own. A record may be a part of something larger, such as the whole answer
    /// of a store, which it would keep in memory.
    pub(crate) fn detached(&self) -> Self {
        let Decoded { header, instructions, messages, .. } = &*self.0;
        let record = Bytes::copy_from_slice(&self.0.record);
        let (instructions, messages) = match header.envelope {
            Some(_) => (Bytes::new(), Bytes::new()),
            None => {
                // The messages end the record; one line feed stands between them and the instructions.
                let messages_at = record.len() - messages.len();
                let instructions_at = messages_at - 1 - instructions.len();
                (record.slice(instructions_at..messages_at - 1), record.slice(messages_at..))
            }
        };
        Self(Arc::new(Decoded { header: Arc::clone(header), record, instructions, messages }))
    }

    /// Bytes of memory that a detached turn takes, without what the allocator adds.
    pub(crate) fn weight(&self) -> usize {
        let header = &*self.0.header;
        let optional = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let entries = header.instructions.iter().chain(&header.messages).map(Entry::weight);
        mem::size_of::<Self>()
            + mem::size_of::<Decoded>()
            + mem::size_of::<Header>()
            + self.0.record.len()
            + BYTES_SHARED
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
