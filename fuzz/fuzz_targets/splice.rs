//! Any bytes as a request body: read, compared, reconciled and spliced without a panic; and what comes out is
//! the client's body with whole messages inserted.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tower_session_memory::{
    history::{Author, Item, Log, TurnParts},
    protocol::{Draft, Protocol, openai_chat::OpenAiChat},
    session::{Principal, SessionKey}, unstable::{Incoming, Mode, reconcile}, Instructions, Window,
};

fuzz_target!(|body: &[u8]| {
    let chat = OpenAiChat::new();
    let body = Bytes::copy_from_slice(body);
    let Ok(draft) = chat.read(&body) else { return };
    for mode in [Mode::Recognize, Mode::Append, Mode::Reset] {
        for log in [Log::new(), log(&draft, 0), log(&draft, draft.items.len().saturating_sub(1))] {
            let plan = reconcile(&incoming(&draft, &log, mode), &|message| chat.canonical(message));
            let spliced = chat.edit(&draft, &plan.insertion()).concat();
            let inserted = spliced.len() - body.len();
            assert_eq!(spliced[..draft.insert_at], body[..draft.insert_at]);
            assert_eq!(spliced[draft.insert_at + inserted..], body[draft.insert_at..]);
            let sent = chat.read(&spliced.into()).expect("what was edited can be read");
            assert!(sent.items.ends_with(&draft.items));
        }
    }
});

fn incoming<'a>(draft: &'a Draft, log: &'a Log, mode: Mode) -> Incoming<'a> {
    Incoming {
        instructions: &draft.instructions,
        items: &draft.items,
        log,
        lead: &[],
        mode,
        retried: draft.body.len() % 2 == 0,
        remember: Instructions::Remember,
        window: Window::default(),
    }
}

/// The messages up to `end`, as the turns that a client would have sent them in.
fn log(draft: &Draft, end: usize) -> Log {
    let key = SessionKey::new("fuzz", Principal::anonymous(), "s".parse().expect("a valid id"));
    let mut log = Log::new();
    let mut sent: Vec<Item> = Vec::new();
    for message in &draft.items[..end] {
        if message.author() != Author::Model {
            sent.push(message.clone());
            continue;
        }
        let instructions = if log.is_empty() { draft.instructions.clone() } else { Vec::new() };
        let sent = std::mem::take(&mut sent);
        let turn = TurnParts::new(OpenAiChat::new().format(), sent, vec![message.clone()]);
        let mut turn = turn;
turn.instructions = instructions;
        log.extend([turn.into_record(&key)]);
    }
    log
}
