//! Any chunking of a stream gives the same events.
#![no_main]

use std::ops::ControlFlow;

use libfuzzer_sys::fuzz_target;
use tower_session_memory::protocol::sse::{SseItem, Parser};

#[path = "chunks.rs"]
mod chunks;

fuzz_target!(|bytes: &[u8]| {
    for limit in [8, 1 << 20] {
        assert_eq!(parse(&chunks::chunks(bytes), limit), parse(&[bytes], limit));
    }
});

fn parse(chunks: &[&[u8]], limit: usize) -> Vec<(u8, Vec<u8>, Vec<u8>)> {
    let mut parser = Parser::new(limit);
    let mut found = Vec::new();
    for chunk in chunks {
        let fed = parser.feed(chunk, |item| {
            found.push(match item {
                SseItem::Opens { data, at } => {
                    assert!(at <= chunk.len());
                    (0, Vec::new(), data.to_vec())
                }
                SseItem::Unknown { name } => (1, name.to_vec(), Vec::new()),
                SseItem::Event { name, data } => {
                    assert!(name.len() + data.len() <= limit + 1);
                    (2, name.to_vec(), data.to_vec())
                }
                _ => unreachable!(),
            });
            ControlFlow::Continue(())
        });
        if fed.is_err() {
            found.push((3, Vec::new(), Vec::new()));
            break;
        }
    }
    found
}
