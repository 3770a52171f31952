//! The reply's way: a stream and a JSON reply to a message, beside copying their bytes once.

use std::hint::black_box;

use tower_session_memory::protocol::{Protocol, Recorder, ReplyKind, ReplyLimits, openai_chat::OpenAiChat};

use super::operation::Operation;

const LIMITS: ReplyLimits = ReplyLimits::new(8 << 20, 4 << 20);

/// What one read of a socket gives at most.
const READ: usize = 16 << 10;

pub(super) fn all() -> Vec<Operation> {
    let stream = || events(500);
    let long = move || json(&"word ".repeat(stream().concat().len() / 5)).into_bytes();
    let short = || vec![json(&"word ".repeat(40)).into_bytes()];
    vec![
        copied("reply: copy a stream of 500 events", stream),
        recorded("reply: a stream of 500 events, one by one", ReplyKind::EventStream, stream).rounds(10),
        recorded("reply: a stream of 500 events, in 16 KiB", ReplyKind::EventStream, move || {
            reads(&stream().concat())
        })
        .rounds(10),
        recorded("reply: JSON as long, in 16 KiB", ReplyKind::Json, move || reads(&long())).rounds(10),
        recorded("reply: JSON of 200 bytes of text", ReplyKind::Json, short),
    ]
}

fn reads(body: &[u8]) -> Vec<Vec<u8>> {
    body.chunks(READ).map(<[u8]>::to_vec).collect()
}

/// A stream of text as OpenAI sends it, with its end.
pub(super) fn events(words: usize) -> Vec<Vec<u8>> {
    let event = |delta: &str, finish: &str| {
        format!(
            "data: {{\"id\":\"chatcmpl-BmvKcYrLaWPvlCmPHqRqZPyqzVYzL\",\"object\":\"chat.completion.chunk\",\
             \"created\":1763800000,\"model\":\"gpt-5-2026-01-01\",\"service_tier\":\"default\",\
             \"system_fingerprint\":\"fp_7eeb46f068\",\"choices\":[{{\"index\":0,\"delta\":{delta},\
             \"logprobs\":null,\"finish_reason\":{finish}}}],\"usage\":null}}\n\n"
        )
        .into_bytes()
    };
    let text = (0..words).map(|word| event(&format!("{{\"content\":\" token{word}\"}}"), "null"));
    text.chain([event("{}", "\"stop\""), b"data: [DONE]\n\n".to_vec()]).collect()
}

pub(super) fn json(text: &str) -> String {
    format!(
        r#"{{"id":"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT","object":"chat.completion","created":1763800000,"model":"gpt-5-2026-01-01","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}","refusal":null,"annotations":[]}},"logprobs":null,"finish_reason":"stop"}}],"usage":{{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29}},"service_tier":"default"}}"#
    )
}

fn recorded(name: &str, kind: ReplyKind, pieces: impl Fn() -> Vec<Vec<u8>> + Sync + 'static) -> Operation {
    Operation::new(name, move || {
        let (protocol, pieces) = (OpenAiChat::new(), pieces());
        Box::new(move || {
            let mut recorder: Box<dyn Recorder> = protocol.recorder(kind, LIMITS);
            for piece in &pieces {
                black_box(recorder.feed(black_box(piece)));
            }
            black_box(recorder.finish().unwrap());
        })
    })
}

fn copied(name: &str, pieces: impl Fn() -> Vec<Vec<u8>> + Sync + 'static) -> Operation {
    Operation::new(name, move || {
        let pieces = pieces();
        Box::new(move || {
            let mut copy = Vec::with_capacity(pieces.iter().map(Vec::len).sum());
            pieces.iter().for_each(|piece| copy.extend_from_slice(black_box(piece)));
            black_box(copy);
        })
    })
    .only_timed()
}
