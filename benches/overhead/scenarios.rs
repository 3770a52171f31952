//! What is asked for.

use std::ops::Range;

use crate::{
    chat::{self, Ask, Manner, TEXT},
    targets::Target::{
        self, Agents, Bare, Direct, LangChain, LiteLlm, Memory, Nginx, Pass, Postgres, Redis, Sqlite, Wire,
    },
};

pub(crate) struct Scenario {
    pub(crate) group: Group,
    pub(crate) manner: Manner,
    pub(crate) concurrency: usize,
    /// The turns that each conversation begins with; it grows while it is measured.
    pub(crate) turns: usize,
    /// Bytes of text in each question before it is measured, and in those that are measured.
    text: [usize; 2],
    load: Count,
    /// Of a peer; it takes 10 to 100 ms of CPU for each. `None` where peers are not asked.
    peer_load: Option<Count>,
    /// How often each target is asked in a repetition.
    pub(crate) rounds: usize,
    pub(crate) targets: &'static [Target],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Group {
    /// A conversation with short messages.
    Chat,
    /// One with 1.6 MB of history.
    Large,
    /// Bodies without a session.
    Body,
    /// Open streams.
    Streams,
    /// More than the upstream can take.
    Saturation,
}

#[derive(Clone, Copy)]
pub(crate) struct Count {
    pub(crate) conversations: usize,
    pub(crate) asked_of_each: usize,
}

const fn of(conversations: usize, asked_of_each: usize) -> Count {
    Count { conversations, asked_of_each }
}

const CHAT: &[Target] =
    &[Direct, Bare, Nginx, Pass, Memory, Sqlite, Redis, Postgres, LiteLlm, LangChain, Agents];
const FIRST: &[Target] =
    &[Direct, Bare, Nginx, Pass, Memory, Sqlite, Redis, Wire, Postgres, LiteLlm, LangChain, Agents];
const OURS: &[Target] = &[Bare, Nginx, Pass, Memory, Sqlite, Redis, Postgres];
const PACED: &[Target] = &[Bare, Pass, Memory, Redis];
const BODY: &[Target] = &[Bare, Nginx, Pass];

/// A history of 1.6 MB: the number of turns, and the bytes of text in the question of each.
const LARGE: (usize, usize) = (50, 32_000);

pub(crate) fn all() -> Vec<Scenario> {
    use Manner::{Json, Long, Paced, Stream};
    let chat = |concurrency, turns, load, peer_load| Scenario {
        group: Group::Chat,
        manner: Json,
        concurrency,
        turns,
        text: [TEXT, TEXT],
        load,
        peer_load: Some(peer_load),
        rounds: 1,
        targets: CHAT,
    };
    let body = |text, conversations| Scenario {
        group: Group::Body,
        text: [text, text],
        rounds: 4,
        targets: BODY,
        peer_load: None,
        ..chat(16, 0, of(conversations, 1), of(0, 0))
    };
    vec![
        Scenario { targets: FIRST, ..chat(1, 0, of(3000, 1), of(40, 1)) },
        chat(1, 20, of(200, 8), of(6, 5)),
        chat(1, 200, of(48, 8), of(2, 6)),
        chat(16, 0, of(9600, 1), of(96, 1)),
        chat(16, 20, of(480, 8), of(32, 2)),
        chat(16, 200, of(96, 8), of(16, 2)),
        chat(64, 0, of(9600, 1), of(128, 1)),
        chat(64, 20, of(480, 8), of(64, 1)),
        chat(64, 200, of(128, 8), of(64, 1)),
        Scenario { manner: Stream, ..chat(16, 20, of(192, 5), of(16, 3)) },
        Scenario { manner: Long, targets: OURS, peer_load: None, ..chat(16, 0, of(192, 1), of(0, 0)) },
        Scenario { manner: Paced, targets: PACED, peer_load: None, ..chat(16, 0, of(32, 1), of(0, 0)) },
        Scenario {
            group: Group::Large,
            text: [LARGE.1, TEXT],
            targets: OURS,
            peer_load: None,
            ..chat(16, LARGE.0, of(16, 8), of(0, 0))
        },
        body(200, 9600),
        body(16_000, 9600),
        body(256_000, 960),
        body(1_600_000, 96),
    ]
}

impl Scenario {
    pub(crate) fn name(&self) -> String {
        let (concurrency, turns) = (self.concurrency, self.turns);
        match (self.group, self.manner) {
            (Group::Large, _) => format!("1.6 MB session c={concurrency}"),
            (Group::Body, _) => format!("body {} KB c={concurrency}", self.text[1] as f64 / 1000.0),
            (_, Manner::Stream) => format!("SSE c={concurrency} t={turns}"),
            (_, Manner::Long) => format!("SSE 400 words c={concurrency} t={turns}"),
            (_, Manner::Paced) => format!("SSE at 5 ms c={concurrency} t={turns}"),
            _ => format!("JSON c={concurrency} t={turns}"),
        }
    }

    /// How much a target is asked, and how often.
    pub(crate) fn load(&self, target: Target, smaller: usize) -> Option<Count> {
        let count = if target.is_peer() { self.peer_load? } else { self.load };
        let conversations = (count.conversations / smaller).max(2);
        Some(Count { conversations, ..count })
    }

    /// Number of repetitions that share their conversations: long ones are not made anew for each, they grow on.
    pub(crate) fn lasts(&self, target: Target) -> usize {
        if self.turns >= LARGE.0 && !target.is_peer() { 5 } else { 1 }
    }

    /// Depths of the conversations in one repetition.
    pub(crate) fn depths(&self, target: Target, repetition: usize, count: Count) -> Range<usize> {
        let from = self.turns + repetition % self.lasts(target) * count.asked_of_each;
        from..from + count.asked_of_each
    }

    pub(crate) fn asks(&self) -> Vec<Ask> {
        let [before, after] = self.text;
        let deepest = self.turns + self.lasts(Bare) * self.load.asked_of_each;
        chat::asks(deepest, self.manner, |turn| if turn < self.turns { before } else { after })
    }

    /// What a request of it sends to the upstream, in the middle of the repetitions.
    pub(crate) fn bytes(&self, asks: &[Ask]) -> usize {
        asks.get((self.turns + asks.len() - 1) / 2).map_or(0, |ask| ask.whole.len())
    }

    /// Settings of the proxy for this scenario: by default it sends at most 512 KiB of history.
    pub(crate) fn settings(&self) -> Vec<String> {
        match self.group {
            Group::Large => vec!["--window-bytes".to_owned(), "16 MiB".to_owned()],
            _ => Vec::new(),
        }
    }
}
