//! Any chunking of a reply gives the same record, and what is recorded is a JSON object.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tower_session_memory::protocol::ReplyKind;

#[path = "reply.rs"]
mod reply;

fuzz_target!(|bytes: &[u8]| reply::check(ReplyKind::EventStream, bytes));
