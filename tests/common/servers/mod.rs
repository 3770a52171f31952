//! Servers that tests start by themselves, on free ports of the loopback address.
//!
//! What a server needs must be installed (`tests/run.sh` does it): a test without it fails. A server ends with
//! its value; only what was started here is ended, by its pid.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(unreachable_pub, missing_docs, reason = "a test binary exports nothing")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod cluster;
mod fault;
mod pgbouncer;
mod postgres;
mod redis;
mod relay;
mod sentinel;

#[allow(unused_imports, reason = "each test binary uses its own part")]
pub use self::{
    cluster::Cluster,
    fault::{Fault, FaultProxy},
    pgbouncer::PgBouncer,
    postgres::{PASSWORD, Postgres},
    redis::{Redis, end_with_this_process},
    relay::{Relay, Traffic},
    sentinel::Watched,
};

use std::{
    net::{Ipv4Addr, TcpListener},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

/// How long a server may take to do something before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A port that was free a moment ago, also 10,000 above it, where a cluster node listens too.
///
/// The port is still free when its server starts, or starts again: the next 9,999 tries take other ports, and the
/// system itself gives only higher ones (on Linux from 32,768 on). Another process begins elsewhere.
pub fn free_port() -> u16 {
    const PORTS: u16 = 10_000;
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % u32::from(PORTS) * 307 % u32::from(PORTS)).unwrap();
    let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    for _ in 0..PORTS {
        let port = PORTS + (first + GIVEN.fetch_add(1, Ordering::Relaxed) % PORTS) % PORTS;
        if is_free(port) && is_free(port + 10_000) {
            return port;
        }
    }
    panic!("no port is free");
}

/// Waits until a condition holds.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "waited for {what}");
        pause();
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's own thread")]
pub fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}
