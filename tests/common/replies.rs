//! Feeding a reply to a recorder in every way it can arrive.
#![allow(dead_code, reason = "each test binary uses its part")]

use serde_json::Value;
use tower_session_memory::protocol::{
    Protocol, Recorder, Reply, ReplyKind, ReplyLimits, Skip, openai_chat::OpenAiChat,
};

pub(crate) const LIMITS: ReplyLimits = ReplyLimits::new(8 << 20, 4 << 20);

/// What a recorder says of a reply. Ids that it makes are replaced by `call_`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub(crate) outcome: Result<Turn, Skip>,
    /// Where in the whole stream the terminal bytes start that the recorder has named.
    pub(crate) terminal: Option<usize>,
    pub(crate) finished: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) message: String,
    pub(crate) calls: Vec<String>,
    pub(crate) finish_reason: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) usage: Option<String>,
}

impl Recorded {
    pub(crate) fn message(&self) -> Value {
        serde_json::from_str(self.raw()).expect("a message that is stored is JSON")
    }

    pub(crate) fn raw(&self) -> &str {
        &self.outcome.as_ref().expect("the reply is recorded").message
    }

    pub(crate) fn skip(&self) -> Skip {
        *self.outcome.as_ref().expect_err("the reply is not recorded")
    }
}

/// How the reply ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    OfBody,
    ClientLeft,
}

pub(crate) fn record(
    protocol: &OpenAiChat,
    kind: ReplyKind,
    limits: ReplyLimits,
    end: End,
    chunks: &[&[u8]],
) -> Recorded {
    let mut recorder = protocol.recorder(kind, limits);
    let mut terminal = None;
    let mut at = 0;
    for chunk in chunks {
        if let Some(offset) = recorder.feed(chunk) {
            assert!(offset <= chunk.len(), "the offset lies in the chunk");
            assert_eq!(terminal, None, "the end is named once");
            terminal = Some(at + offset);
        }
        at += chunk.len();
    }
    let finished = recorder.is_finished();
    Recorded { outcome: outcome(recorder.as_mut(), end).map(Turn::from), terminal, finished }
}

fn outcome(recorder: &mut dyn Recorder, end: End) -> Result<Reply, Skip> {
    match end {
        End::OfBody => recorder.finish(),
        End::ClientLeft => recorder.interrupt(),
    }
}

impl From<Reply> for Turn {
    fn from(reply: Reply) -> Self {
        let [item] = &reply.items[..] else { panic!("a reply of this format is one message") };
        let message = std::str::from_utf8(item.raw()).expect("a message that is stored is text");
        Self {
            message: without_made_ids(message),
            calls: item.about().calls.clone(),
            finish_reason: reply.finish_reason,
            model: reply.model,
            usage: reply.usage.map(|usage| usage.get().to_owned()),
        }
    }
}

fn without_made_ids(message: &str) -> String {
    const PREFIX: &str = "\"id\":\"call_";
    let mut out = String::new();
    let mut rest = message;
    while let Some(at) = rest.find(PREFIX) {
        let (before, id) = rest.split_at(at + PREFIX.len());
        out.push_str(before);
        let made = id.get(..33).is_some_and(|id| {
            id.ends_with('"') && id[..32].bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase())
        });
        rest = if made { &id[32..] } else { id };
    }
    out + rest
}

/// Cuts bytes into chunks of one size.
pub(crate) fn pieces(bytes: &[u8], size: usize) -> Vec<&[u8]> {
    bytes.chunks(size).collect()
}

/// Records a reply whole, in pieces of several sizes and cut in two at every byte, and insists that all say
/// the same.
pub(crate) fn record_every_way(protocol: &OpenAiChat, kind: ReplyKind, end: End, bytes: &[u8]) -> Recorded {
    let whole = record(protocol, kind, LIMITS, end, &[bytes]);
    let same = |chunks: &[&[u8]], how: &str| {
        let other = record(protocol, kind, LIMITS, end, chunks);
        let terminal = whole.terminal.map(|terminal| terminal.max(known_in(kind, bytes, chunks, terminal)));
        assert_eq!(other, Recorded { terminal, ..whole.clone() }, "{how}");
    };
    for size in [1, 3, 5, 7] {
        same(&pieces(bytes, size), &format!("in pieces of {size}"));
    }
    for cut in 0..bytes.len().min(4096) {
        let (head, tail) = bytes.split_at(cut);
        same(&[head, tail], &format!("cut at {cut}"));
    }
    whole
}

/// Where the chunk starts with which the terminal line (or brace) is known: it cannot be held before.
fn known_in(kind: ReplyKind, bytes: &[u8], chunks: &[&[u8]], terminal: usize) -> usize {
    let last = match kind {
        ReplyKind::Json => terminal,
        _ => {
            terminal + bytes[terminal..].iter().position(|b| matches!(b, b'\r' | b'\n')).expect("a line ends")
        }
    };
    let mut start = 0;
    for chunk in chunks {
        if last < start + chunk.len() {
            break;
        }
        start += chunk.len();
    }
    start
}
