//! One history: replicas on a store, clients that use them, an upstream, and faults.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::{
    common::{LIMIT, Launch, Upstream, random::Random},
    linearity::{
        backend::{Backend, REPLICAS, peace},
        client::Client,
        history::{History, Span},
        replica::{Build, Replica},
        world::{Plan, World},
    },
};

/// A history, and how much happened in it.
pub struct Run {
    pub history: History,
    pub faults: usize,
    pub kills: usize,
}

/// Runs one history.
pub async fn run(plan: &Plan, backend: &Backend, build: &Build) -> Run {
    let direct = match build {
        Build::Binary => Arc::clone(&backend.direct),
        Build::Local(open) => open(backend.direct_url()).await,
    };
    let world = Arc::new(World::new(plan, direct));
    let model = Arc::clone(&world);
    let upstream = Upstream::start_with(move |seen| model.answer(seen)).await.unwrap();
    let launch = Launch::new(&upstream.url()).with_default_limits();
    let mut replicas = Vec::new();
    for index in 0..REPLICAS {
        let url = backend.url(index);
        replicas.push(Some(Replica::start(build, &launch, upstream.addr(), &url).await));
    }
    world.replicas.send_replace(replicas.iter().map(|r| r.as_ref().map(Replica::addr)).collect());

    let mut clients = JoinSet::new();
    for number in 0..plan.clients {
        clients.spawn(Client::new(number, Arc::clone(&world)).run());
    }
    let (mut faults, mut kills, mut rewinds) = (0, 0, Vec::new());
    let mut dice = Random::of(plan.seed, 1_000_000);
    let until = Instant::now() + 10 * LIMIT;
    loop {
        let wait = tokio::time::timeout(peace(&mut dice), clients.join_next()).await;
        match wait {
            Ok(None) => break,
            Ok(Some(client)) => {
                client.unwrap();
                continue;
            }
            Err(_) => assert!(Instant::now() < until, "the clients do not finish"),
        }
        faults += 1;
        if dice.one_in(4) {
            kills += 1;
            let index = dice.below(REPLICAS);
            world.replicas.send_modify(|all| all[index] = None);
            replicas[index].take().unwrap().kill().await;
            backend.clear();
            let url = backend.url(index);
            let replica = Replica::start(build, &launch, upstream.addr(), &url).await;
            world.replicas.send_modify(|all| all[index] = Some(replica.addr()));
            replicas[index] = Some(replica);
        } else if rewinds.len() < plan.rewinds {
            rewinds.push(rewind(&world, backend).await);
        } else {
            backend.fault(&mut dice).await;
        }
    }
    backend.heal().await;
    for replica in replicas.into_iter().flatten() {
        replica.drain().await;
    }
    let history = world.close(rewinds).await;
    Run { history, faults, kills }
}

/// The server's state of a moment ago comes back, as from a replica that lagged behind.
async fn rewind(world: &World, backend: &Backend) -> Span {
    let client = redis::Client::open(backend.direct_url()).unwrap();
    let patient = redis::AsyncConnectionConfig::new().set_response_timeout(Some(LIMIT));
    let mut connection = client.get_multiplexed_async_connection_with_config(&patient).await.unwrap();
    let dump = "local all = {} for _, key in ipairs(redis.call('KEYS', '*')) do \
                all[#all + 1] = key all[#all + 1] = redis.call('DUMP', key) end return all";
    let all: Vec<Vec<u8>> = redis::cmd("EVAL").arg(dump).arg(0).query_async(&mut connection).await.unwrap();
    tokio::time::sleep(Duration::from_millis(150)).await;
    let mut restore = redis::pipe();
    restore.atomic().cmd("FLUSHALL").ignore();
    for pair in all.chunks(2) {
        restore.cmd("RESTORE").arg(&pair[0]).arg(0).arg(&pair[1]).ignore();
    }
    let from = world.now();
    restore.query_async::<()>(&mut connection).await.unwrap();
    Span { from, to: world.now() }
}
