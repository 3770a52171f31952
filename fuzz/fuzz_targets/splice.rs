//! Any bytes as a request body: read, compared, reconciled and spliced without a panic; and what comes out is
//! the client's body with whole messages inserted.

#![no_main]

use std::time::SystemTime;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tower_session_memory::{
    history::{
        Incoming, Instructions, Log, Message, Mode, Parent, Role, RecordId, TurnParts, TurnState, Window,
        reconcile,
    },
    protocol::{Draft, Protocol, openai_chat::OpenAiChat, splice::splice},
    session::{Principal, SessionKey},
};

fuzz_target!(|body: &[u8]| {
    let chat = OpenAiChat::new();
    let body = Bytes::copy_from_slice(body);
    let Ok(draft) = chat.read(&body) else { return };
    for mode in [Mode::Recognize, Mode::Append, Mode::Reset] {
        for log in [Log::new(), log(&draft, draft.leading), log(&draft, draft.messages.len() - 1)] {
            let plan = reconcile(&incoming(&draft, &log, mode), &|message| chat.canonical(message));
            let spliced = splice(&draft, plan.insertion()).concat();
            let inserted = spliced.len() - body.len();
            assert_eq!(spliced[..draft.insert_at], body[..draft.insert_at]);
            assert_eq!(spliced[draft.insert_at + inserted..], body[draft.insert_at..]);
            let sent = chat.read(&spliced.into()).expect("what was edited can be read");
            assert!(sent.messages.ends_with(&draft.messages[draft.leading..]));
        }
    }
});

fn incoming<'a>(draft: &'a Draft, log: &'a Log, mode: Mode) -> Incoming<'a> {
    Incoming {
        messages: &draft.messages,
        leading: draft.leading,
        log,
        mode,
        retried: draft.body.len() % 2 == 0,
        instructions: Instructions::Remember,
        window: Window::default(),
    }
}

/// The messages up to `end`, as the turns that a client would have sent them in.
fn log(draft: &Draft, end: usize) -> Log {
    let key = SessionKey::new("fuzz", Principal::anonymous(), "s".parse().expect("a valid id"));
    let mut log = Log::new();
    let mut sent: Vec<Message> = Vec::new();
    for message in &draft.messages[draft.leading..end.max(draft.leading)] {
        if *message.role() != Role::Assistant {
            sent.push(message.clone());
            continue;
        }
        let turn = TurnParts {
            id: RecordId::new(),
            parent: Parent::Previous,
            at: SystemTime::UNIX_EPOCH,
            instructions: draft.messages[..if log.is_empty() { draft.leading } else { 0 }].to_vec(),
            sent: std::mem::take(&mut sent),
            reply: message.clone(),
            state: TurnState::Complete,
            finish_reason: None,
            model: None,
            usage: None,
        };
        log.extend([turn.into_record(&key)]);
    }
    log
}
