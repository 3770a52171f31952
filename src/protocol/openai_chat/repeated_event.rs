//! Events of a stream that are the one before with another text, as most are.
//!
//! * What it saves: 3,520,000 of 5,054,000 instructions of 500 events
//!   (`cargo bench --profile cost --features proxy --bench cost -- 'reply: a stream of 500 events, one by one'`).
//! * Without it: each event is parsed, which is right as well.
//! * What holds it: `events_that_repeat_themselves_say_what_events_that_do_not_say`, below, which compares both ways.

use crate::protocol::json::text;

/// What stands around the text of an event that did nothing but add to the content.
///
/// An event is JSON, and a string in it can be any other string without anything else meaning something else. So
/// an event that is the same around its text need not be parsed.
#[derive(Default)]
pub(super) struct RepeatedEvent {
    /// Up to the opening quote, which is in it. Empty if there was no such event.
    before: String,
    /// From the closing quote on.
    after: String,
}

/// Bytes around a text that are remembered at most. Providers send some 300.
const MOST: usize = 4 * 1024;

impl RepeatedEvent {
    /// Remembers an event; `text` is the string literal in it.
    pub(super) fn set(&mut self, event: &str, text: &str) {
        let at = text::span(event, text);
        self.clear();
        if event.len() - text.len() > MOST {
            return;
        }
        self.before.push_str(&event[..at.start + 1]);
        self.after.push_str(&event[at.end - 1..]);
    }

    pub(super) fn clear(&mut self) {
        self.before.clear();
        self.after.clear();
    }

    /// The inside of the literal, if this is the event that was remembered with another text. One that has escapes is
    /// left to a parser.
    pub(super) fn text<'a>(&self, event: &'a str) -> Option<&'a str> {
        if self.before.is_empty() {
            return None;
        }
        let text = event.strip_prefix(&*self.before)?.strip_suffix(&*self.after)?;
        text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\').then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::{Protocol, ReplyKind, ReplyLimits, openai_chat::OpenAiChat};

    #[test]
    fn only_the_text_may_differ() {
        let mut around = RepeatedEvent::default();
        assert_eq!(around.text("\"\""), None);
        let event = r#"{"a":"b","c":1}"#;
        around.set(event, &event[5..8]);
        assert_eq!(around.text(event), Some("b"));
        assert_eq!(around.text(r#"{"a":"","c":1}"#), Some(""));
        assert_eq!(around.text(r#"{"a":"x y","c":1}"#), Some("x y"));
        for other in [
            r#"{"a":"b","c":2}"#,
            r#"{"a":"\n","c":1}"#,
            r#"{"a":"b","x":"","c":1}"#,
            "{\"a\":\"\n\",\"c\":1}",
            r#"{"a":"#,
        ] {
            assert_eq!(around.text(other), None, "{other}");
        }
    }

    /// What a chunk says, from a few things that come again.
    fn delta() -> impl Strategy<Value = &'static str> {
        prop_oneof![
            4 => Just(r#""delta":{"content":"a"}"#),
            4 => Just(r#""delta":{"content":"bc"}"#),
            1 => Just(r#""delta":{"content":""}"#),
            1 => Just(r#""delta":{"content":"\"\n\ud83d"}"#),
            1 => Just(r#""delta":{"content":"\ude00"}"#),
            1 => Just(r#""delta":{"content":null}"#),
            1 => Just(r#""delta":{"content":"x","content":"y"}"#),
            2 => Just(r#""delta":{"role":"assistant","content":"r"}"#),
            1 => Just(r#""delta":{"content":"t","reasoning_content":"u"}"#),
            1 => Just(r#""delta":{"content":"t","reasoning_content":"v"}"#),
            1 => Just(r#""delta":{"content":[{"type":"text","text":"p"}]}"#),
            1 => Just(r#""delta":{"tool_calls":[{"index":0,"id":"i","function":{"name":"f","arguments":"{}"}}]}"#),
            1 => Just(r#""delta":{"content":"t"},"finish_reason":"stop""#),
            1 => Just(r#""delta":{"content":"q"}},{"index":1,"delta":{"content":"s"}"#),
            1 => Just(r#""delta":{"content":"q"}},{"index":0,"delta":{"content":"s"}"#),
        ]
    }

    proptest! {
        #[test]
        fn events_that_repeat_themselves_say_what_events_that_do_not_say(
            deltas in prop::collection::vec(delta(), 1..30),
        ) {
            let said = |differ: bool| {
                let limits = ReplyLimits { reply: 1 << 20, event: 1 << 20 };
                let mut recorder = OpenAiChat::new().recorder(ReplyKind::EventStream, limits);
                for (at, delta) in deltas.iter().enumerate() {
                    let spaces = " ".repeat(if differ { at } else { 0 });
                    let event = format!("data: {{\"choices\":[{{\"index\":0,{delta}}}]{spaces}}}\n\n");
                    recorder.feed(event.as_bytes());
                }
                recorder.feed(b"data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n");
                recorder.finish().map(|reply| reply.items)
            };
            prop_assert_eq!(said(false), said(true));
        }
    }
}
