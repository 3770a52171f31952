//! The request's way: find the messages, reconcile, splice. Beside it what a gateway without splicing does: parse the
//! body and the history, insert, serialise.

use std::hint::black_box;

use bytes::Bytes;
use serde_json::Value;
use tower_session_memory::{
    Instructions, Window,
    history::Log,
    protocol::{Protocol, openai_chat::OpenAiChat},
    unstable::{Incoming, Mode, reconcile},
};

use super::{
    fixtures::{body, delta, exchanges, log, message},
    operation::Operation,
};

/// Turns that a client with a window of its own still sends.
const REMEMBERED: usize = 5;

pub(super) fn all() -> Vec<Operation> {
    [0, 20, 200, 2000].into_iter().flat_map(of).collect()
}

/// Requests of each kind of client after `turns` turns.
fn of(turns: usize) -> Vec<Operation> {
    let name = |what: &str| format!("request: {what}, {turns} turns");
    let mut all =
        vec![spliced(name("a delta"), turns, delta), reserialised(name("parse, insert, serialise"), turns)];
    if turns > 0 {
        all.push(spliced(name("a window of the client's"), turns, || resend(REMEMBERED)));
        let resends = [
            spliced(name("a resend"), turns, move || resend(turns)),
            spliced(name("a resend in other words"), turns, move || in_other_words(&resend(turns))),
        ];
        let rounds = (1000 / turns).max(5);
        all.extend(resends.map(|resend| resend.rounds(rounds)).map(|resend| match turns {
            0..=200 => resend,
            _ => resend.only_timed(),
        }));
    }
    all
}

fn resend(turns: usize) -> Bytes {
    body(&[exchanges(turns), vec![message("user")]].concat())
}

fn in_other_words(body: &Bytes) -> Bytes {
    String::from_utf8_lossy(body).replace(r#""content""#, r#""refusal":null,"content""#).into()
}

fn spliced(name: String, turns: usize, body: impl Fn() -> Bytes + Sync + 'static) -> Operation {
    let operation = Operation::new(name, move || {
        let (body, log) = (body(), log(turns));
        Box::new(move || {
            black_box(splice_into(black_box(&body), &log));
        })
    });
    if turns > 200 { operation.rounds(20) } else { operation }
}

fn splice_into(body: &Bytes, log: &Log) -> Vec<Bytes> {
    let chat = OpenAiChat::new();
    let draft = chat.read(body).unwrap();
    let incoming = Incoming {
        instructions: &draft.instructions,
        items: &draft.items,
        log,
        lead: &[],
        mode: Mode::Recognize,
        retried: false,
        remember: Instructions::Remember,
        window: Window::default(),
    };
    let plan = reconcile(&incoming, &|message| chat.canonical(message));
    chat.edit(&draft, &plan.insertion())
}

fn reserialised(name: String, turns: usize) -> Operation {
    Operation::new(name, move || {
        let (body, history) = (delta(), format!("[{}]", exchanges(turns).join(",")));
        Box::new(move || {
            let mut body: Value = serde_json::from_slice(black_box(&body)).unwrap();
            let mut messages: Vec<Value> = serde_json::from_str(&history).unwrap();
            let sent = body["messages"].as_array_mut().unwrap();
            messages.append(sent);
            *sent = messages;
            black_box(serde_json::to_vec(&body).unwrap());
        })
    })
    .only_timed()
}
