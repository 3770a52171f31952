//! A record of kind `turn`: how it is made, and how it is read.

use std::{fmt, sync::Arc, time::SystemTime};

use bytes::Bytes;
use serde_json::value::RawValue;

use super::{
    encoded::{Decoded, Record},
    header::{self, Content, Entry, Header, More, TurnHeader},
    id::RecordId,
    parts::{TurnParts, TurnState},
    place::Place,
    sum,
};
use crate::{
    history::{About, ClientCase, Format, Item},
    session::SessionKey,
};

/// One turn: the client's new items and the reply's, whole or not at all.
///
/// A reading of a [`Record`]; as cheap to copy as two references. `Debug` shows no content.
#[derive(Clone, Copy)]
pub struct Turn<'a> {
    record: &'a Record,
    header: &'a TurnHeader,
}

impl TurnParts {
    /// Builds the turn's record for this session.
    #[must_use]
    pub fn into_record(mut self, key: &SessionKey) -> Record {
        self.usage = self.usage.map(header::on_one_line);
        self.view = self.view.map(header::on_one_line);
        let items = || self.sent.iter().chain(&self.reply);
        let texts = self.instructions.iter().chain(items()).map(|item| item.raw().len() + ENTRY);
        let said = self.model.as_ref().map_or(0, String::len)
            + self.usage.as_ref().map_or(0, |usage| usage.get().len());
        let mut record = Vec::with_capacity(HEADER + said + texts.sum::<usize>());
        let at = self.at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_millis() as u64);
        header::write(&mut record, &self, key.digest(), at);
        let sum_at = sum::reserve(&mut record);
        let instructions_at = record.len();
        join(&mut record, &self.instructions);
        record.push(b'\n');
        let items_at = record.len();
        join(&mut record, items());
        sum::fill(&mut record, sum_at);
        let bytes = Bytes::from(record);
        let sent = self.sent.len();
        let entries = |items: Vec<Item>| items.into_iter().map(Entry::of);
        let mut all = Vec::with_capacity(sent + self.reply.len());
        all.extend(entries(self.sent).chain(entries(self.reply)));
        let more = More {
            response_id: self.response_id,
            attempt: self.attempt,
            idempotency_key: self.idempotency_key,
            view: self.view.map(|view| view.get().to_owned()),
            title: self.title,
        };
        let turn = TurnHeader {
            format: self.format,
            state: self.state,
            client: self.client,
            finish_reason: self.finish_reason,
            model: self.model,
            usage: self.usage,
            more: more.boxed(),
            instructions: entries(self.instructions).collect(),
            items: all,
            sent,
        };
        let header = Header {
            id: self.id,
            parent: self.parent,
            session: key.digest(),
            at,
            content: Content::Turn(turn),
        };
        Record(Arc::new(Decoded {
            header: Arc::new(header),
            instructions: bytes.slice(instructions_at..items_at - 1),
            items: bytes.slice(items_at..),
            bytes,
        }))
    }
}

/// Bytes of a header without model and usage, and of an item in it: about.
const HEADER: usize = 256 + sum::LEN;
const ENTRY: usize = 36;

impl Record {
    /// The turn that the record holds, if it is of that kind.
    #[must_use]
    pub fn turn(&self) -> Option<Turn<'_>> {
        match &self.0.header.content {
            Content::Turn(header) => Some(Turn { record: self, header }),
            Content::Envelope(_) | Content::Other(_) => None,
        }
    }
}

impl<'a> Turn<'a> {
    /// The record that holds it.
    #[must_use]
    pub fn record(self) -> &'a Record {
        self.record
    }

    /// Id of the turn.
    #[must_use]
    pub fn id(self) -> RecordId {
        self.record.id()
    }

    /// Format of its items.
    #[must_use]
    pub fn format(self) -> Format {
        self.header.format
    }

    /// Complete or interrupted.
    #[must_use]
    pub fn state(self) -> TurnState {
        self.header.state
    }

    /// What the provider gave as the reason for ending.
    #[must_use]
    pub fn finish_reason(self) -> Option<&'a str> {
        self.header.finish_reason.as_deref()
    }

    /// The model that the reply names.
    #[must_use]
    pub fn model(self) -> Option<&'a str> {
        self.header.model.as_deref()
    }

    /// The reply's `usage`, as raw JSON.
    #[must_use]
    pub fn usage(self) -> Option<&'a RawValue> {
        self.header.usage.as_deref()
    }

    /// How the client's items continued the session.
    #[must_use]
    pub fn client(self) -> Option<ClientCase> {
        self.header.client
    }

    /// The id that the upstream gave the reply.
    #[must_use]
    pub fn response_id(self) -> Option<&'a str> {
        self.more()?.response_id.as_deref()
    }

    /// Number of the client's attempt, from 0.
    #[must_use]
    pub fn attempt(self) -> Option<u32> {
        self.more()?.attempt
    }

    /// Digest of the request's idempotency key.
    #[must_use]
    pub fn idempotency_key(self) -> Option<&'a str> {
        self.more()?.idempotency_key.as_deref()
    }

    /// What the upstream was shown of the path, as raw JSON.
    #[must_use]
    pub fn view(self) -> Option<&'a str> {
        self.more()?.view.as_deref()
    }

    /// A title of the conversation.
    #[must_use]
    pub fn title(self) -> Option<&'a str> {
        self.more()?.title.as_deref()
    }

    /// How many items the turn holds, those of the reply among them.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a turn without items is no use, and none is made")]
    pub fn len(self) -> usize {
        self.header.items.len()
    }

    /// How many of its items came from the client.
    #[must_use]
    pub fn sent(self) -> usize {
        self.header.sent
    }

    /// Meaning of each item, in order.
    pub fn about(self) -> impl ExactSizeIterator<Item = &'a About> + DoubleEndedIterator {
        self.header.items.iter().map(|entry| &entry.about)
    }

    /// The items, in order; those of the reply are the last.
    pub fn items(self) -> impl ExactSizeIterator<Item = Item> + use<'a> {
        slices(&self.record.0.items, &self.header.items)
    }

    /// The instructions that the turn brought; empty when they had not changed.
    pub fn instructions(self) -> impl ExactSizeIterator<Item = Item> + use<'a> {
        slices(&self.record.0.instructions, &self.header.instructions)
    }

    /// The items as they are inserted: raw JSON joined by single commas.
    #[must_use]
    pub fn item_bytes(self) -> &'a Bytes {
        &self.record.0.items
    }

    /// The instructions as they are inserted; empty when the turn brought none.
    #[must_use]
    pub fn instruction_bytes(self) -> &'a Bytes {
        &self.record.0.instructions
    }

    /// The place after all of its items.
    #[must_use]
    pub fn place(self) -> Place {
        Place { turn: self.id(), items: u32::try_from(self.len()).unwrap_or(u32::MAX) }
    }

    /// How many bytes the first `count` items take as they are inserted.
    pub(in crate::history) fn bytes_of_first(self, count: usize) -> usize {
        let taken: usize = self.header.items.iter().take(count).map(|entry| entry.len + 1).sum();
        taken.saturating_sub(1)
    }

    fn more(self) -> Option<&'a More> {
        self.header.more.as_deref()
    }
}

impl fmt::Debug for Turn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn")
            .field("id", &self.id())
            .field("parent", &self.record.parent())
            .field("format", &self.format())
            .field("state", &self.state())
            .field("items", &self.len())
            .finish_non_exhaustive()
    }
}

impl Entry {
    fn of(item: Item) -> Self {
        Self { len: item.raw().len(), about: item.into_about() }
    }
}

fn join<'a>(into: &mut Vec<u8>, items: impl IntoIterator<Item = &'a Item>) {
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            into.push(b',');
        }
        into.extend_from_slice(item.raw());
    }
}

fn slices<'a>(joined: &'a Bytes, entries: &'a [Entry]) -> impl ExactSizeIterator<Item = Item> + use<'a> {
    let mut at = 0;
    entries.iter().map(move |entry| {
        let raw = joined.slice(at..at + entry.len);
        at += entry.len + 1;
        Item::new(raw, entry.about.clone())
    })
}
