use std::{mem, sync::Arc};

use bytes::Bytes;

use super::{
    encoded::{Decoded, Record},
    header::{Content, Entry, Header, More, TurnHeader},
};
use crate::history::About;

impl Record {
    /// The same record in memory of its own. A record may be a part of something larger, such as the whole answer
    /// of a store, which it would keep in memory.
    pub(crate) fn detached(&self) -> Self {
        let Decoded { header, instructions, items, .. } = &*self.0;
        let bytes = Bytes::copy_from_slice(&self.0.bytes);
        let (instructions, items) = match header.content {
            Content::Turn(_) => {
                // The items end the record; one line feed stands between them and the instructions.
                let items_at = bytes.len() - items.len();
                let instructions_at = items_at - 1 - instructions.len();
                (bytes.slice(instructions_at..items_at - 1), bytes.slice(items_at..))
            }
            Content::Envelope(_) | Content::Other(_) => (Bytes::new(), Bytes::new()),
        };
        Self(Arc::new(Decoded { header: Arc::clone(header), bytes, instructions, items }))
    }

    /// Bytes of memory that a detached record takes, without what the allocator adds.
    pub(crate) fn weight(&self) -> usize {
        let content = match &self.0.header.content {
            Content::Turn(turn) => turn.on_heap(),
            Content::Envelope(envelope) => envelope.weight(),
            Content::Other(kind) => kind.len(),
        };
        mem::size_of::<Self>()
            + mem::size_of::<Decoded>()
            + mem::size_of::<Header>()
            + self.0.bytes.len()
            + BYTES_SHARED
            + content
    }
}

impl TurnHeader {
    fn on_heap(&self) -> usize {
        optional(&self.finish_reason)
            + optional(&self.model)
            + self.usage.as_ref().map_or(0, |usage| usage.get().len())
            + self.more.as_ref().map_or(0, |more| more.weight())
            + (self.instructions.capacity() + self.items.capacity()) * mem::size_of::<Entry>()
            + self.instructions.iter().chain(&self.items).map(Entry::on_heap).sum::<usize>()
    }
}

impl More {
    fn weight(&self) -> usize {
        let Self { response_id, attempt: _, idempotency_key, view, title } = self;
        let texts = [response_id, idempotency_key, view, title];
        mem::size_of::<Self>() + texts.into_iter().map(optional).sum::<usize>()
    }
}

impl Entry {
    /// Bytes on the heap.
    fn on_heap(&self) -> usize {
        let About { calls, answers, .. } = &self.about;
        let ids = calls.iter().chain(answers).map(String::capacity);
        (calls.capacity() + answers.capacity()) * mem::size_of::<String>() + ids.sum::<usize>()
    }
}

fn optional(text: &Option<String>) -> usize {
    text.as_ref().map_or(0, String::capacity)
}

/// What `Bytes` allocates beside the bytes once they are shared, and the two counts of an `Arc`.
const BYTES_SHARED: usize = 5 * mem::size_of::<usize>();

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{
        Author, Item, Parent,
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
            let mut about = About::new(Author::Model).with_answers([text("b")]);
            about.calls.reserve_exact(calls);
            about.calls.push(text("a"));
            turn(Parent::Previous, &[user("x")], Item::new(Bytes::from_static(b"{}"), about)).weight()
        };
        let exact = |text: &str| text.to_owned();
        assert_eq!(weight(&roomy, 1) - weight(&exact, 1), 2 * 999);
        assert_eq!(weight(&exact, 11) - weight(&exact, 1), 10 * mem::size_of::<String>());
    }
}
