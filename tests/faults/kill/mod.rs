//! The proxy dies, or the server of its store, again and again, under load; nothing that a client saw end is
//! lost, doubled or torn.
//!
//! Clients hold conversations, half of them as streams, and note every turn whose end they saw. Processes are
//! killed with `kill -9` at random times, or abort at named points (feature `failpoints`). After the last
//! death the store is read through the library and compared with what the clients noted.
//!
//! `SESSION_MEMORY_KILLS` sets the number of random kills of a proxy; 20 by default. A server is killed a quarter
//! as often.

mod findings;
mod postgres;
mod redis;
mod sqlite;
mod world;

/// How many kills of a proxy each test makes.
fn kills() -> usize {
    std::env::var("SESSION_MEMORY_KILLS")
        .map_or(20, |kills| kills.parse().expect("SESSION_MEMORY_KILLS is a number"))
}
