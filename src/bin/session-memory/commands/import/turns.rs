//! Turns out of messages, as the proxy would have stored them.
//!
//! A turn ends with each reply. Its id is made from the session and from all entries of the source up to there. The
//! same beginning of a conversation therefore gives the same ids in every import, and stored turns are recognised.

use std::time::SystemTime;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tower_session_memory::{
    history::{Item, Record, RecordId, TurnParts},
    protocol::{Protocol, Uneditable, openai_chat::OpenAiChat},
    session::SessionKey,
};

use super::{
    piece::{Entry, Kind, Piece},
    report::Why,
};

/// Turns of a session.
#[derive(Default)]
pub(super) struct Turns {
    pub(super) turns: Vec<Record>,
    /// Messages at the end without a reply.
    pub(super) unanswered: usize,
    pub(super) left: Vec<(usize, Why)>,
}

/// Makes the turns of a session. `kind` names what wrote it: the same bytes in another format are other turns.
///
/// # Errors
///
/// [`Uneditable`], when a turn holds more messages than a request may.
pub(super) fn build(
    kind: &str,
    key: &SessionKey,
    entries: &[Entry],
    pieces: Vec<Piece>,
) -> Result<Turns, Uneditable> {
    let mut building = Building {
        key,
        entries,
        ids: Ids::new(kind, key),
        turns: Turns::default(),
        instructions: Vec::new(),
        sent: Vec::new(),
        calls: Vec::new(),
        results: Vec::new(),
    };
    for piece in pieces {
        building.take(piece)?;
    }
    let Building { mut turns, instructions, sent, results, .. } = building;
    let leading = if turns.turns.is_empty() { instructions.len() } else { 0 };
    turns.unanswered = sent.len() + results.len() + leading;
    Ok(turns)
}

struct Building<'a> {
    key: &'a SessionKey,
    entries: &'a [Entry],
    ids: Ids,
    turns: Turns,
    /// Instructions at the beginning, which the first turn stores.
    instructions: Vec<String>,
    /// Messages since the last reply.
    sent: Vec<String>,
    /// Unanswered calls of the last reply, while only results have followed it.
    calls: Vec<String>,
    /// Results for that reply.
    results: Vec<(usize, String)>,
}

impl Building<'_> {
    fn take(&mut self, piece: Piece) -> Result<(), Uneditable> {
        if let Kind::Result(id) = &piece.kind {
            match self.calls.iter().position(|call| call == id) {
                Some(at) => {
                    self.calls.remove(at);
                    self.results.push((piece.last, piece.json));
                }
                None => self.turns.left.push((piece.last, Why::Orphan)),
            }
            return Ok(());
        }
        self.settle();
        match piece.kind {
            // Clients that send instructions with every request repeat them in the middle.
            Kind::Instruction if self.instructions.contains(&piece.json) => {}
            Kind::Instruction if self.turns.turns.is_empty() && self.sent.is_empty() => {
                self.instructions.push(piece.json);
            }
            Kind::Reply(_) => self.end_turn(piece)?,
            Kind::Instruction | Kind::Sent | Kind::Result(_) => self.sent.push(piece.json),
        }
        Ok(())
    }

    /// Results are sent all or not at all: a call that is answered in part is refused with every request that
    /// replays it, and one that is not answered is left out of what is replayed (`view/valid.rs`).
    fn settle(&mut self) {
        let results = std::mem::take(&mut self.results);
        if self.calls.is_empty() {
            self.sent.extend(results.into_iter().map(|(_, json)| json));
        } else {
            self.turns.left.extend(results.into_iter().map(|(at, _)| (at, Why::Partial)));
        }
        self.calls.clear();
    }

    fn end_turn(&mut self, piece: Piece) -> Result<(), Uneditable> {
        let instructions = if self.turns.turns.is_empty() { &self.instructions[..] } else { &[] };
        let sent = std::mem::take(&mut self.sent);
        let mut messages = messages(instructions.iter().chain(&sent).chain([&piece.json]))?;
        let Some(reply) = messages.pop() else { return Ok(()) };
        let sent = messages.split_off(instructions.len());
        let id = self.ids.after(self.entries, piece.last, self.turns.turns.len());
        let mut parts = TurnParts::new(OpenAiChat::new().format(), sent, vec![reply]);
        parts.id = id;
        parts.at = self.entries.get(piece.last).and_then(|entry| entry.at).unwrap_or_else(SystemTime::now);
        parts.instructions = messages;
        parts.finish_reason = piece.facts.finish_reason;
        parts.model = piece.facts.model;
        parts.usage = piece.facts.usage;
        self.turns.turns.push(parts.into_record(self.key));
        if let Kind::Reply(calls) = piece.kind {
            self.calls = calls;
        }
        Ok(())
    }
}

/// Messages as the proxy reads them from a request.
fn messages<'a>(json: impl Iterator<Item = &'a String>) -> Result<Vec<Item>, Uneditable> {
    // A request never ends with a message of the model.
    let last = r#"{"role":"user","content":""}"#;
    let json: Vec<&str> = json.map(String::as_str).chain([last]).collect();
    let body = format!("{{\"messages\":[{}]}}", json.join(","));
    let draft = OpenAiChat::new().read(&Bytes::from(body))?;
    let mut messages = [draft.instructions, draft.items].concat();
    messages.pop();
    Ok(messages)
}

/// A digest that goes along with the entries.
struct Ids {
    digest: Sha256,
    taken: usize,
}

impl Ids {
    fn new(kind: &str, key: &SessionKey) -> Self {
        let mut digest = Sha256::new();
        digest.update(format!("session-memory import 1\n{kind}\n{}\n", key.digest().to_hex()));
        Self { digest, taken: 0 }
    }

    /// The id of the turn that ends with this entry: a UUIDv7 whose time is the turn's place, so that ids
    /// sort as the turns do.
    fn after(&mut self, entries: &[Entry], last: usize, place: usize) -> RecordId {
        for entry in entries.iter().take(last + 1).skip(self.taken) {
            self.digest.update((entry.json.len() as u64).to_be_bytes());
            self.digest.update(&entry.json);
        }
        self.taken = last + 1;
        let mut id = [0; 16];
        id.copy_from_slice(&self.digest.clone().finalize()[..16]);
        id[..6].copy_from_slice(&(place as u64).to_be_bytes()[2..]);
        id[6] = 0x70 | (id[6] & 0x0f);
        id[8] = 0x80 | (id[8] & 0x3f);
        RecordId::from_bytes(id)
    }
}
