//! What a conversation must look like to the model, whatever way the client has of sending it.

use serde_json::Value;

use super::shared::answer;
use crate::common::{assistant, random::Random, system, user};

/// A turn of the history.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    pub question: String,
    /// The request whose answer it is.
    pub number: usize,
}

/// A conversation as its client knows it.
#[derive(Debug, Default)]
pub struct Talk {
    instructions: Vec<Value>,
    path: Vec<Turn>,
    /// A turn whose end the client did not see, and how long the history was then: it may be stored.
    unknown: Option<(Turn, usize)>,
}

/// A request, and what the model must be shown.
#[derive(Debug)]
pub struct Request {
    pub sent: Vec<Value>,
    /// The value of the header `session-memory`.
    pub control: Option<&'static str>,
    /// What the proxy must take the client for.
    pub client: &'static str,
    /// How much of the history the turn continues.
    kept: usize,
    /// What the model sees before what was sent.
    before: usize,
    instructed: bool,
    pub question: String,
}

impl Turn {
    fn messages(&self) -> [Value; 2] {
        [user(&self.question), assistant(&answer(self.number))]
    }
}

fn messages(path: &[Turn]) -> impl Iterator<Item = Value> {
    path.iter().flat_map(Turn::messages)
}

impl Talk {
    pub fn new(random: &mut Random, name: &str) -> Self {
        let instructions = if random.one_in(2) { vec![system(&format!("Be {name}."))] } else { vec![] };
        Self { instructions, ..Self::default() }
    }

    /// The next request: what is new, all that there was, its newest part, another version of what was said
    /// before, the same again, or a new start.
    pub fn next(&self, random: &mut Random, question: String) -> Request {
        let turns = self.path.len();
        let delta = |client| Request {
            sent: vec![user(&question)],
            control: None,
            client,
            kept: turns,
            before: turns,
            instructed: false,
            question: question.clone(),
        };
        if turns == 0 {
            let sent = self.instructions.iter().cloned().chain([user(&question)]).collect();
            return Request { sent, instructed: true, ..delta("new") };
        }
        // Until it is known what the history is, a client that sends it would change it.
        if self.unknown.is_some() {
            return delta("delta");
        }
        // All of the history up to some turn, and a question.
        let whole = |kept: usize, question: String, client| {
            let history = self.instructions.iter().cloned().chain(messages(&self.path[..kept]));
            let sent = history.chain([user(&question)]).collect();
            Request { sent, kept, before: 0, instructed: true, question, ..delta(client) }
        };
        match random.below(10) {
            0 | 1 => whole(turns, question.clone(), "resend"),
            2 | 3 if turns > 1 => {
                let before = random.within(1..turns);
                let sent = messages(&self.path[before..]).chain([user(&question)]).collect();
                Request { sent, before, ..delta("window") }
            }
            4 if turns > 1 => whole(random.within(1..turns), question.clone(), "edit"),
            5 if turns > 1 => {
                let kept = random.within(1..turns);
                whole(kept, self.path[kept].question.clone(), "edit")
            }
            6 if random.one_in(3) => {
                let fresh = whole(0, question.clone(), "");
                Request { control: Some("reset"), ..fresh }
            }
            _ => delta("delta"),
        }
    }

    /// Compares what the model was shown with what it must be shown.
    pub fn check(&mut self, request: &Request, seen: &[Value]) -> Result<(), String> {
        let expected = self.expected(&self.path[..request.before], request);
        if expected == seen {
            return Ok(());
        }
        // What was under way when its replica died may have been stored at any time since.
        if let Some((turn, from)) = self.unknown.clone() {
            for place in from..=self.path.len() {
                let mut path = self.path.clone();
                path.insert(place, turn.clone());
                if self.expected(&path, request) == seen {
                    self.path = path;
                    self.unknown = None;
                    return Ok(());
                }
            }
        }
        Err(format!(
            "the model was shown\n{}\nand not\n{}\nunknown: {:?}",
            Value::from(seen),
            Value::from(expected),
            self.unknown
        ))
    }

    fn expected(&self, history: &[Turn], request: &Request) -> Vec<Value> {
        let instructions = if request.instructed { &[] } else { self.instructions.as_slice() };
        instructions.iter().cloned().chain(messages(history)).chain(request.sent.iter().cloned()).collect()
    }

    /// The client saw its end.
    pub fn ended(&mut self, request: Request, number: usize) {
        let kept = if request.client == "delta" { self.path.len() } else { request.kept };
        self.path.truncate(kept);
        self.path.push(Turn { question: request.question, number });
    }

    /// It broke off. Only a request that keeps the history can go on from there.
    pub fn broke(&mut self, request: Request, number: usize) -> Going {
        if self.path.is_empty() || request.kept < self.path.len() || self.unknown.is_some() {
            return Going::Lost;
        }
        self.unknown = Some((Turn { question: request.question, number }, self.path.len()));
        Going::On
    }
}

/// Whether a client still knows what to expect.
#[derive(Debug, PartialEq)]
pub enum Going {
    On,
    Lost,
}
