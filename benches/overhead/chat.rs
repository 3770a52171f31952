//! The conversation that everybody holds: what is sent, what is answered, and what must arrive.

use bytes::Bytes;

/// Bytes of text in each message.
const TEXT: usize = 200;
/// Events with text in a streamed reply.
const EVENTS: usize = 40;

/// The headers in which the upstream says what it was sent.
pub(crate) const SEEN_MESSAGES: &str = "x-seen-messages";
pub(crate) const SEEN_BYTES: &str = "x-seen-bytes";

/// A request of the conversation, after so many turns.
pub(crate) struct Ask {
    /// With the client's new message only.
    pub(crate) delta: Bytes,
    /// With the whole history: what the upstream is to see either way.
    pub(crate) whole: Bytes,
    /// Messages in `whole`.
    pub(crate) messages: usize,
}

/// The requests from the first to the one after `turns` turns.
pub(crate) fn asks(turns: usize, stream: bool) -> Vec<Ask> {
    let head = format!(r#"{{"model":"bench","stream":{stream},"messages":["#);
    let mut history = String::new();
    let mut asks = Vec::with_capacity(turns + 1);
    for turn in 0..=turns {
        let user = user(turn);
        asks.push(Ask {
            delta: format!("{head}{user}]}}").into(),
            whole: format!("{head}{history}{user}]}}").into(),
            messages: 2 * turn + 1,
        });
        history.push_str(&format!("{user},{},", assistant()));
    }
    asks
}

fn user(turn: usize) -> String {
    let text = format!("{:x<TEXT$}", format!("Turn {turn}: "));
    format!(r#"{{"role":"user","content":"{text}"}}"#)
}

/// The reply as a message of the next request.
fn assistant() -> String {
    format!(r#"{{"role":"assistant","content":"{}"}}"#, words().concat())
}

fn words() -> Vec<String> {
    (0..EVENTS).map(|word| format!("{word:_>width$}", width = TEXT / EVENTS)).collect()
}

/// The reply as one JSON object, with what OpenAI has around it.
pub(crate) fn json() -> Bytes {
    format!(
        r#"{{"id":"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT","object":"chat.completion","created":1763800000,"model":"gpt-5-2026-01-01","choices":[{{"index":0,"message":{{"role":"assistant","content":"{}","refusal":null,"annotations":[]}},"logprobs":null,"finish_reason":"stop"}}],"usage":{{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29}},"service_tier":"default"}}"#,
        words().concat()
    )
    .into()
}

/// The reply as a stream: the role, the words, the end, each an event.
pub(crate) fn events() -> Vec<Bytes> {
    let chunk = |delta: &str, finish: &str| {
        let event = format!(
            r#"data: {{"id":"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT","object":"chat.completion.chunk","created":1763800000,"model":"gpt-5-2026-01-01","service_tier":"default","system_fingerprint":"fp_7eeb46f068","choices":[{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish}}}],"usage":null}}"#
        );
        Bytes::from(event + "\n\n")
    };
    let role = chunk(r#"{"role":"assistant","content":"","refusal":null}"#, "null");
    let words = words().into_iter().map(|word| chunk(&format!(r#"{{"content":"{word}"}}"#), "null"));
    let end = [chunk("{}", r#""stop""#), Bytes::from_static(b"data: [DONE]\n\n")];
    std::iter::once(role).chain(words).chain(end).collect()
}
