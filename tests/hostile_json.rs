//! What JSON of the wrong kind costs: a parser's error describes what was found, in several times as much memory as
//! was sent.

#![allow(clippy::unwrap_used)]

use std::alloc::System;

use bytes::Bytes;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tower_session_memory::{
    history::{About, Author, Item},
    protocol::{Protocol, ReplyKind, ReplyLimits, Skip, openai_chat::OpenAiChat},
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes that reading may allocate, beside what it keeps.
const LITTLE: usize = 64 * 1024;

/// Bytes of the string that stands where it should not.
const LONG: usize = 1 << 20;

/// What this gives, and bytes that were allocated for it.
fn counted<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let region = Region::new(ALLOCATOR);
    let done = work();
    (done, region.change().bytes_allocated)
}

/// One test, since what other threads allocate would be counted, too.
#[test]
fn a_long_string_in_the_wrong_place_is_not_described() {
    // Errors show this character as an escape sequence, six times as long.
    let filling = "\u{7f}".repeat(LONG);
    let string = format!("\"{filling}\"");
    requests(&string, 0);
    comparisons(&string, LITTLE);
    replies(&string, LITTLE);
    // This string must be decoded, and is no slice of what was sent.
    let string = format!("\"\\n{filling}\"");
    requests(&string, 2 * LONG);
    comparisons(&string, LONG + LITTLE);
    replies(&string, 3 * LONG + LITTLE);
}

/// A key may take `key` bytes more: it is decoded before it is known to be none that counts.
fn requests(string: &str, key: usize) {
    let user = r#"{"role":"user","content":"x"}"#;
    let cases = [
        (string.to_owned(), Err(OpenAiChat::NO_MESSAGES)),
        (format!(r#"{{"messages":{string}}}"#), Err(OpenAiChat::NOT_MESSAGES)),
        (format!(r#"{{"messages" : [ {string}]}}"#), Err(OpenAiChat::NOT_MESSAGES)),
        (format!(r#"{{"messages":[{user} , {string}]}}"#), Err(OpenAiChat::NOT_MESSAGES)),
        (format!(r#"{{"messages":[{{{string}:1}}]}}"#), Err(OpenAiChat::NOT_MESSAGES)),
        (format!(r#"{{"conversation":{string},"messages":[{user}]}}"#), Err(OpenAiChat::UPSTREAM_STATE)),
        (
            format!(r#"{{"messages":[{user}],"previous_response_id":{string}}}"#),
            Err(OpenAiChat::UPSTREAM_STATE),
        ),
        (format!(r#"{{{string}:1,"messages":[{user}]}}"#), Ok(1)),
        (format!(r#"{{"messages":[{{{string}:1,"role":"user"}}]}}"#), Ok(1)),
        (format!(r#"{{"messages":[{{"role":"assistant","tool_calls":{string}}},{user}]}}"#), Ok(2)),
        (format!(r#"{{"messages":[{{"role":"assistant","tool_calls":[{string}]}},{user}]}}"#), Ok(2)),
        (format!(r#"{{"messages":[{{"role":"user","content":{string}}}]}}"#), Ok(1)),
    ];
    for (case, (body, expected)) in cases.into_iter().enumerate() {
        let most = LITTLE + if body.contains("\":1") { key } else { 0 };
        let body = Bytes::from(body);
        let (read, allocated) = counted(|| OpenAiChat::new().read(&body).map(|draft| draft.items.len()));
        assert_eq!(read, expected, "request {case}");
        assert!(allocated < most, "request {case}: {allocated} bytes were allocated");
    }
    // A role is kept, whatever it is.
    let body = Bytes::from(format!(r#"{{"messages":[{{"role":{string}}}]}}"#));
    let (read, allocated) = counted(|| OpenAiChat::new().read(&body).map(|draft| draft.items.len()));
    assert_eq!(read, Ok(1), "a role");
    assert!(allocated < 2 * LONG + LITTLE, "a role: {allocated} bytes were allocated");
}

fn comparisons(string: &str, most: usize) {
    for (case, says) in [
        format!(r#""content":[{string}]"#),
        format!(r#""content":{{{string}:1}}"#),
        format!(r#""tool_calls":{string}"#),
        format!(r#""tool_calls":[{string}]"#),
        format!(r#""tool_calls":[{{"function":{string}}}]"#),
        format!(r#""function_call":{string}"#),
        format!(r#""audio":{string}"#),
    ]
    .into_iter()
    .enumerate()
    {
        let raw = Bytes::from(format!(r#"{{"role":"assistant",{says}}}"#));
        let message = Item::new(raw, About::new(Author::Model));
        let (_, allocated) = counted(|| OpenAiChat::new().canonical(&message));
        assert!(allocated < most, "message {case}: {allocated} bytes were allocated");
    }
}

fn replies(string: &str, most: usize) {
    use Skip::{NoFinishReason, Unparseable};

    let cases = [
        (string.to_owned() + "}", [Unparseable; 2]),
        (format!(r#"{{"choices":{string}}}"#), [Unparseable; 2]),
        (format!(r#"{{"choices":[{string}]}}"#), [Unparseable; 2]),
        (format!(r#"{{"choices":[{{"SAID":{string}}}]}}"#), [NoFinishReason, Unparseable]),
        (format!(r#"{{"choices":[{{{string}:1}}]}}"#), [NoFinishReason; 2]),
        (format!(r#"{{"choices":[{{"SAID":{{{string}:1}}}}]}}"#), [NoFinishReason; 2]),
    ];
    for (case, (reply, expected)) in cases.into_iter().enumerate() {
        let whole = (ReplyKind::Json, reply.replace("SAID", "message"));
        let streamed = (ReplyKind::EventStream, format!("data: {}\n\n", reply.replace("SAID", "delta")));
        // A member of a delta is kept, with its name as it was sent and decoded.
        let kept = if case == 5 { 3 * LONG } else { 0 };
        for ((kind, reply), expected) in [whole, streamed].into_iter().zip(expected) {
            let limits = ReplyLimits::new(3 * LONG, 3 * LONG);
            let mut recorder = OpenAiChat::new().recorder(kind, limits);
            let (_, allocated) = counted(|| recorder.feed(reply.as_bytes()));
            assert!(allocated < most + kept, "{kind:?} {case}: {allocated} bytes were allocated");
            assert_eq!(recorder.finish().unwrap_err(), expected, "{kind:?} {case}");
        }
    }
}
