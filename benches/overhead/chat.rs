//! The conversation that everybody holds: what is sent, what is answered, and what must arrive.

use bytes::Bytes;

/// Bytes of text in a message, where a scenario does not say otherwise.
pub(crate) const TEXT: usize = 200;
/// Bytes of each word of a reply.
const WORD: usize = 5;

/// The headers in which the upstream says what it was sent.
pub(crate) const SEEN_MESSAGES: &str = "x-seen-messages";
pub(crate) const SEEN_BYTES: &str = "x-seen-bytes";
/// Where the upstream says how many requests and messages it was sent since it began.
pub(crate) const SEEN: &str = "/seen";

/// How the upstream answers; the model's name tells it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// One JSON object, at once.
    Json,
    /// A stream of 40 words, each an event that is written by itself, at once.
    Stream,
    /// The same with 400 words.
    Long,
    /// The same with 40 words, one every 5 ms.
    Paced,
    /// A stream that stops after ten words and stays open.
    Held,
    /// One JSON object, after 20 ms, and never more than 64 at once: as a model does.
    Slow,
}

impl Manner {
    pub(crate) const ALL: [Self; 6] =
        [Self::Json, Self::Stream, Self::Long, Self::Paced, Self::Held, Self::Slow];

    /// The name of the model that answers so. The peers ask for the first, whether they stream or not.
    pub(crate) fn model(self) -> &'static str {
        match self {
            Self::Json | Self::Stream => "bench",
            Self::Long => "bench-long",
            Self::Paced => "bench-paced",
            Self::Held => "bench-held",
            Self::Slow => "bench-slow",
        }
    }

    pub(crate) fn streams(self) -> bool {
        !matches!(self, Self::Json | Self::Slow)
    }

    fn count(self) -> usize {
        if self == Self::Long { 400 } else { TEXT / WORD }
    }

    pub(crate) fn words(self) -> Vec<String> {
        (0..self.count()).map(|word| format!("{word:_>WORD$}")).collect()
    }

    /// The reply's body: one piece, or an event each.
    pub(crate) fn reply(self) -> Vec<Bytes> {
        match self.streams() {
            false => vec![json(&self.words())],
            true => events(&self.words()),
        }
    }
}

/// A request of the conversation; its index in [`asks`] is the number of turns before it.
pub(crate) struct Ask {
    /// With the client's new message only.
    pub(crate) delta: Bytes,
    /// With the whole history: what the upstream is to see either way.
    pub(crate) whole: Bytes,
    /// Messages in `whole`.
    pub(crate) messages: usize,
}

/// The requests from the first to the one after `turns` turns; `text` tells the length of each turn's question.
pub(crate) fn asks(turns: usize, manner: Manner, text: impl Fn(usize) -> usize) -> Vec<Ask> {
    let head = format!(r#"{{"model":"{}","stream":{},"messages":["#, manner.model(), manner.streams());
    let reply = assistant(manner);
    let mut history = String::new();
    let mut asks = Vec::with_capacity(turns + 1);
    for turn in 0..=turns {
        let user = user(turn, text(turn));
        asks.push(Ask {
            delta: format!("{head}{user}]}}").into(),
            whole: format!("{head}{history}{user}]}}").into(),
            messages: 2 * turn + 1,
        });
        history.push_str(&format!("{user},{reply},"));
    }
    asks
}

/// History that a peer starts with: the given number of turns, in the form in which the peer keeps them.
pub(crate) fn seed(turns: usize) -> Bytes {
    let turns = (0..turns).map(|turn| format!("{},{}", user(turn, TEXT), assistant(Manner::Json)));
    format!("[{}]", turns.collect::<Vec<_>>().join(",")).into()
}

fn user(turn: usize, length: usize) -> String {
    let mut text = format!("Turn {turn}: ");
    // The width of a format has 16 bits.
    text.extend(std::iter::repeat_n('x', length - text.len()));
    format!(r#"{{"role":"user","content":"{text}"}}"#)
}

/// The reply as a message of the next request.
fn assistant(manner: Manner) -> String {
    format!(r#"{{"role":"assistant","content":"{}"}}"#, manner.words().concat())
}

/// The reply as one JSON object, with what OpenAI has around it.
fn json(words: &[String]) -> Bytes {
    format!(
        r#"{{"id":"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT","object":"chat.completion","created":1763800000,"model":"gpt-5-2026-01-01","choices":[{{"index":0,"message":{{"role":"assistant","content":"{}","refusal":null,"annotations":[]}},"logprobs":null,"finish_reason":"stop"}}],"usage":{{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29}},"service_tier":"default"}}"#,
        words.concat()
    )
    .into()
}

/// The reply as a stream: the role, the words, the end, each an event.
fn events(words: &[String]) -> Vec<Bytes> {
    let chunk = |delta: &str, finish: &str| {
        let event = format!(
            r#"data: {{"id":"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT","object":"chat.completion.chunk","created":1763800000,"model":"gpt-5-2026-01-01","service_tier":"default","system_fingerprint":"fp_7eeb46f068","choices":[{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish}}}],"usage":null}}"#
        );
        Bytes::from(event + "\n\n")
    };
    let role = chunk(r#"{"role":"assistant","content":"","refusal":null}"#, "null");
    let words = words.iter().map(|word| chunk(&format!(r#"{{"content":"{word}"}}"#), "null"));
    let end = [chunk("{}", r#""stop""#), Bytes::from_static(b"data: [DONE]\n\n")];
    std::iter::once(role).chain(words).chain(end).collect()
}
