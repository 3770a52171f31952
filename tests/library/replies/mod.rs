//! Recorded replies: every rule, every captured reply, and any chunking of them.

mod chunking;
#[path = "../../common/replies.rs"]
mod recorded;
mod rules;
mod wire;
