use std::{mem, sync::Arc};

use bytes::Bytes;

use super::{Decoded, Entry, Header, Record, envelope};
use crate::history::{About, Role};

impl Record {
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
        let optional = |text: &Option<String>| text.as_ref().map_or(0, String::capacity);
        let entries = header.instructions.iter().chain(&header.messages).map(Entry::on_heap);
        mem::size_of::<Self>()
            + mem::size_of::<Decoded>()
            + mem::size_of::<Header>()
            + self.0.record.len()
            + BYTES_SHARED
            + optional(&header.finish_reason)
            + optional(&header.model)
            + header.usage.as_ref().map_or(0, |usage| usage.get().len())
            + header.envelope.as_ref().map_or(0, envelope::About::weight)
            + (header.instructions.capacity() + header.messages.capacity()) * mem::size_of::<Entry>()
            + entries.sum::<usize>()
    }
}

impl Entry {
    /// Bytes on the heap.
    fn on_heap(&self) -> usize {
        let About { role, calls, answers } = &self.about;
        let role = if let Role::Other(role) = role { role.capacity() } else { 0 };
        let ids = calls.iter().chain(answers).map(String::capacity);
        role + calls.capacity() * mem::size_of::<String>() + ids.sum::<usize>()
    }
}

/// What `Bytes` allocates beside the bytes once they are shared, and the two counts of an `Arc`.
const BYTES_SHARED: usize = 5 * mem::size_of::<usize>();

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{
        Message, Parent,
        fixtures::{turn, user},
    };

    #[test]
    fn memory_that_is_allocated_counts_whether_it_is_used_or_not() {
        let roomy = |text: &str| {
            let mut roomy = String::with_capacity(1000);
            roomy.push_str(text);
            roomy
        };
        let weight = |text: &dyn Fn(&str) -> String, calls: usize| {
            let mut about = About::new(Role::Other(text("r")));
            about.answers = Some(text("b"));
            about.calls.reserve_exact(calls);
            about.calls.push(text("a"));
            turn(Parent::Previous, &[user("x")], Message::new(Bytes::from_static(b"{}"), about)).weight()
        };
        let exact = |text: &str| text.to_owned();
        assert_eq!(weight(&roomy, 1) - weight(&exact, 1), 3 * 999);
        assert_eq!(weight(&exact, 11) - weight(&exact, 1), 10 * mem::size_of::<String>());
    }
}
