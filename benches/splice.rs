//! The request's way through the library: find the messages, reconcile a delta, splice.
//!
//! Beside it what a gateway without splicing does: parse the body and the history, insert, serialise.
//!
//! `cargo bench --bench splice`

#![allow(missing_docs, clippy::unwrap_used)]

use std::{hint::black_box, time::SystemTime};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::Value;
use tower_session_memory::{
    history::{Incoming, Instructions, Log, Mode, Parent, TurnId, TurnParts, TurnState, Window, reconcile},
    protocol::{Protocol, openai_chat::OpenAiChat, splice::splice},
    session::{Principal, SessionKey},
};

/// Bytes of text in each message.
const TEXT: usize = 200;

fn turns(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("request");
    for turns in [0, 20, 200] {
        let log = log(turns);
        let delta = body(&[message("user")]);
        let history = Bytes::from(format!("[{}]", joined(&log)));
        group.throughput(Throughput::Bytes((delta.len() + history.len()) as u64));
        group.bench_with_input(BenchmarkId::new("splice a delta", turns), &log, |bencher, log| {
            bencher.iter(|| spliced(black_box(&delta), log));
        });
        group.bench_with_input(
            BenchmarkId::new("parse, insert, serialise", turns),
            &history,
            |bencher, history| {
                bencher.iter(|| reserialised(black_box(&delta), history));
            },
        );
        let resend = body(&[joined(&log), message("user")]);
        group.bench_with_input(BenchmarkId::new("recognise a resend", turns), &log, |bencher, log| {
            bencher.iter(|| spliced(black_box(&resend), log));
        });
        let other_words =
            body(&[joined(&log).replace(r#""content""#, r#""refusal":null,"content""#), message("user")]);
        group.bench_with_input(BenchmarkId::new("recognise other words", turns), &log, |bencher, log| {
            bencher.iter(|| spliced(black_box(&other_words), log));
        });
    }
    group.finish();
}

fn spliced(body: &Bytes, log: &Log) -> Vec<Bytes> {
    let chat = OpenAiChat::new();
    let draft = chat.read(body).unwrap();
    let incoming = Incoming {
        messages: &draft.messages,
        leading: draft.leading,
        log,
        mode: Mode::Recognize,
        retried: false,
        instructions: Instructions::Remember,
        window: Window::default(),
    };
    let plan = reconcile(&incoming, &|message| chat.canonical(message));
    splice(&draft, plan.insertion())
}

fn reserialised(body: &[u8], history: &[u8]) -> Vec<u8> {
    let mut body: Value = serde_json::from_slice(body).unwrap();
    let mut messages: Vec<Value> = serde_json::from_slice(history).unwrap();
    let sent = body["messages"].as_array_mut().unwrap();
    messages.append(sent);
    *sent = messages;
    serde_json::to_vec(&body).unwrap()
}

fn message(role: &str) -> String {
    format!(r#"{{"role":"{role}","content":"{}"}}"#, "Some text. ".repeat(TEXT / 11))
}

/// A request of these messages; empty ones are left out.
fn body(messages: &[String]) -> Bytes {
    let messages: Vec<_> = messages.iter().filter(|message| !message.is_empty()).cloned().collect();
    format!(r#"{{"model":"m","stream":true,"messages":[{}]}}"#, messages.join(",")).into()
}

fn joined(log: &Log) -> String {
    let turns = log.turns().iter().map(|turn| String::from_utf8_lossy(turn.message_bytes()));
    turns.collect::<Vec<_>>().join(",")
}

fn log(turns: usize) -> Log {
    let chat = OpenAiChat::new();
    let key = SessionKey::new("bench", Principal::anonymous(), "s".parse().unwrap());
    let exchange = body(&[message("user"), message("assistant"), message("user")]);
    let messages = chat.read(&exchange).unwrap().messages;
    (0..turns)
        .map(|_| {
            TurnParts {
                id: TurnId::new(),
                parent: Parent::Previous,
                at: SystemTime::UNIX_EPOCH,
                instructions: Vec::new(),
                sent: messages[..1].to_vec(),
                reply: messages[1].clone(),
                state: TurnState::Complete,
                finish_reason: None,
                model: None,
                usage: None,
            }
            .into_turn(&key)
        })
        .collect()
}

criterion_group!(benches, turns);
criterion_main!(benches);
