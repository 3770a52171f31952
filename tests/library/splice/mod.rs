//! Edited requests: against an oracle, and captured ones byte for byte.

mod oracle;
mod wire;
