//! Replicas on one store, behind clients that ask another one each time, at random: the next request always sees
//! the turn whose end the client saw. Every request that reaches the model is compared with the exact list of
//! messages that it must hold.
//!
//! `SESSION_MEMORY_TURNS` sets how many turns each test holds on each store; 30 by default.

mod client;
mod shared;
mod talk;

use std::sync::{Arc, Mutex, atomic::AtomicUsize};

use tokio::{sync::watch, task::JoinSet};

use self::{
    client::Client,
    shared::{Counts, Shared},
};
use crate::{
    common::{
        random::{Random, seed},
        *,
    },
    place::{Kind, Place},
};

on_every_store! { on():
    two_replicas_behave_like_one
    three_replicas_that_come_and_go_behave_like_one
}

async fn two_replicas_behave_like_one(on: Kind) {
    // The cache of its default size, and one that has room for a few turns.
    World::start(on, &[&[], &["--cache-bytes", "4 KiB"]]).await.hold(0).await;
}

async fn three_replicas_that_come_and_go_behave_like_one(on: Kind) {
    let replicas: [&[&str]; 3] = [&[], &["--cache-bytes", "4 KiB"], &["--cache-bytes", "none"]];
    World::start(on, &replicas).await.hold(turns().div_ceil(15)).await;
}

/// How many turns a test holds.
pub fn turns() -> usize {
    std::env::var("SESSION_MEMORY_TURNS")
        .map_or(30, |turns| turns.parse().expect("SESSION_MEMORY_TURNS is a number"))
}

/// Conversations at the same time.
const CLIENTS: usize = 4;

struct World {
    upstream: Upstream,
    replicas: Vec<Option<Proxy>>,
    shared: Arc<Shared>,
    random: Random,
    place: Place,
}

impl World {
    async fn start(on: Kind, settings: &[&[&str]]) -> Self {
        let seed = seed();
        let place = Place::new(on).await;
        let upstream = Upstream::start().await.unwrap();
        let launch = place.launch(&upstream);
        let mut replicas = Vec::new();
        for settings in settings {
            let replica = settings.iter().fold(launch.sibling(), |launch, arg| launch.arg(arg));
            replicas.push(Some(replica.start().await));
        }
        let shared = Arc::new(Shared {
            addresses: Mutex::new(replicas.iter().map(|replica| replica.as_ref().map(Proxy::addr)).collect()),
            seen: Mutex::default(),
            launch,
            numbers: AtomicUsize::new(0),
            ended: watch::Sender::new(0),
            wanted: turns(),
            store: on.name(),
        });
        let model = Arc::clone(&shared);
        upstream.set_model(move |seen| model.reply(seen));
        Self { upstream, replicas, shared, random: Random::new(seed), place }
    }

    /// Lets the clients talk until there are turns enough, and replaces a replica `restarts` times meanwhile.
    async fn hold(mut self, restarts: usize) {
        let mut clients = JoinSet::new();
        for name in 0..CLIENTS {
            clients.spawn(Client::new(name, self.random.next(), &self.shared).run());
        }
        let mut deaths = [0; 2];
        for restart in 1..=restarts {
            let turns = self.shared.wanted * restart / (restarts + 1);
            let mut ended = self.shared.ended.subscribe();
            within("turns to end", ended.wait_for(|ended| *ended >= turns)).await.unwrap();
            deaths[self.replace_one().await] += 1;
        }
        let mut counts = Counts::default();
        while let Some(client) = clients.join_next().await {
            let client = client.unwrap();
            counts.sessions += client.sessions;
            counts.ended += client.ended;
            counts.broken += client.broken;
            counts.stored += client.stored;
        }
        assert!(counts.ended >= self.shared.wanted, "{counts:?}");
        println!(
            "{:?}, {} replicas, {} of them terminated and {} killed and started again: {} sessions, {} turns \
             seen to end, {} broken off; {} stored; 0 lost, doubled, torn or missing from the next request",
            self.place.kind,
            self.replicas.len(),
            deaths[0],
            deaths[1],
            counts.sessions,
            counts.ended,
            counts.broken,
            counts.stored
        );
        drop(self.upstream);
    }

    /// Ends a replica and starts it again: 0 by SIGTERM, 1 by `kill -9`.
    async fn replace_one(&mut self) -> usize {
        let (index, way) = (self.random.below(self.replicas.len()), self.random.below(2));
        let replica = self.replicas[index].take().expect("it runs");
        let launch = match way {
            0 => {
                self.shared.addresses.lock().unwrap()[index] = None;
                let launch = replica.launch().clone();
                replica.terminate();
                let ended = replica.ended().await;
                assert!(ended.status.success(), "{ended:?}");
                launch
            }
            _ => {
                let launch = replica.kill().await;
                self.shared.addresses.lock().unwrap()[index] = None;
                launch
            }
        };
        let replica = launch.start().await;
        self.shared.addresses.lock().unwrap()[index] = Some(replica.addr());
        self.replicas[index] = Some(replica);
        way
    }
}
