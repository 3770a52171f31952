use serde_json::value::RawValue;
use tower_session_memory::protocol::{ReplyKind, ReplyLimits, openai_chat::OpenAiChat};

#[path = "chunks.rs"]
mod chunks;
#[path = "../../tests/common/replies.rs"]
mod replies;

use replies::{End, LIMITS, record};

pub fn check(kind: ReplyKind, bytes: &[u8]) {
    let protocol = OpenAiChat::default();
    let chunks = chunks::chunks(bytes);
    for (limits, end) in [
        (LIMITS, End::OfBody),
        (LIMITS, End::ClientLeft),
        (ReplyLimits::new(64, 128), End::OfBody),
    ] {
        let whole = record(&protocol, kind, limits, end, &[bytes]);
        let pieces = record(&protocol, kind, limits, end, &chunks);
        assert_eq!(pieces.outcome, whole.outcome);
        assert_eq!(pieces.finished, whole.finished);
        assert_eq!(pieces.terminal.is_some(), whole.terminal.is_some());
        assert!(pieces.terminal >= whole.terminal);
        if whole.outcome.is_ok() {
            // Not a `Value`: it refuses lone surrogates and deep nesting, which are stored as they were sent.
            let message: &RawValue = serde_json::from_str(whole.raw()).expect("what is stored is JSON");
            assert!(message.get().starts_with('{'));
        }
    }
}
