//! What the clients, the model and the replicas of a test share.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::Value;
use tokio::sync::watch;

use crate::common::{Launch, Reply, Seen, Step, random::Random};

/// What clients know of the world.
pub struct Shared {
    /// The replicas that are there.
    pub addresses: Mutex<Vec<Option<SocketAddr>>>,
    /// What the model was asked, by the number of the request.
    pub seen: Mutex<HashMap<usize, Vec<Value>>>,
    /// To look into the store.
    pub launch: Launch,
    pub numbers: AtomicUsize,
    /// Turns whose end was seen.
    pub ended: watch::Sender<usize>,
    pub wanted: usize,
    /// What the store calls itself.
    pub store: &'static str,
}

/// What happened.
#[derive(Debug, Default)]
pub struct Counts {
    pub sessions: usize,
    pub ended: usize,
    pub broken: usize,
    pub stored: usize,
}

/// The model's answer to a request of this number. Some are long, for the wrappers.
pub fn answer(number: usize) -> String {
    format!("answer {number}{}", " and so on".repeat(number % 3 * 40))
}

impl Shared {
    /// Notes what the model is asked, and answers it slowly enough for deaths to fall in between.
    pub fn reply(&self, seen: &Seen) -> Reply {
        let number = seen.header("x-number").and_then(|number| number.parse().ok()).expect("it has a number");
        let twice = self.seen.lock().unwrap().insert(number, seen.messages());
        assert!(twice.is_none(), "request {number} reached the model twice");
        let text = answer(number);
        let reply = if seen.json()["stream"] == true { Reply::stream(&text) } else { Reply::text(&text) };
        reply.after(Step::Pause(std::time::Duration::from_millis(number as u64 % 4)))
    }

    pub fn a_replica(&self, random: &mut Random) -> SocketAddr {
        let alive: Vec<_> = self.addresses.lock().unwrap().iter().flatten().copied().collect();
        *random.pick(&alive)
    }

    pub fn next_number(&self) -> usize {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }
}
