//! One history: replicas on a store, clients that use them, an upstream, and faults.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use tokio::{sync::watch, task::JoinSet};
use tower_session_memory::{
    history::{Item, Record, TurnState},
    session::{Principal, SessionKey},
    store::DynHistoryStore,
};

use crate::linearity::{
    backend::{Backend, REPLICAS, peace},
    client::Client,
    history::{History, Op, Role, Said, Session, Shown, Span, Stored, Time},
    replica::{Build, Replica},
};
use crate::{
    common::random::Random,
    common::{self, LIMIT, Launch, Reply, Seen, Step, Upstream, within},
};

/// What happens in a history.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    /// What the names of the sessions end in: histories of the same seed may share a store.
    pub tag: &'static str,
    pub clients: usize,
    /// Of each client.
    pub ops: usize,
    /// How often the store goes back to an older state.
    pub rewinds: usize,
}

/// What the clients, the upstream and the faults share.
pub struct World {
    pub plan: Plan,
    pub replicas: watch::Sender<Vec<Option<SocketAddr>>>,
    /// A way to the store without faults.
    pub direct: Arc<dyn DynHistoryStore>,
    started: Instant,
    numbers: AtomicUsize,
    replies: AtomicU64,
    ops: Mutex<Vec<Op>>,
    shown: Mutex<Vec<Shown>>,
}

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

impl World {
    fn new(plan: &Plan, direct: Arc<dyn DynHistoryStore>) -> Self {
        Self {
            plan: plan.clone(),
            replicas: watch::Sender::new(Vec::new()),
            direct,
            started: Instant::now(),
            numbers: AtomicUsize::new(0),
            replies: AtomicU64::new(0),
            ops: Mutex::default(),
            shown: Mutex::default(),
        }
    }

    pub fn now(&self) -> Time {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap()
    }

    /// The number of the next operation.
    pub fn number(&self) -> usize {
        self.numbers.fetch_add(1, Ordering::SeqCst)
    }

    pub fn note(&self, op: Op) {
        self.ops.lock().unwrap().push(op);
    }

    /// What the upstream was shown for an operation.
    pub fn shown(&self, op: usize) -> Option<Vec<Said>> {
        let shown = self.shown.lock().unwrap();
        shown.iter().rev().find(|shown| shown.op == op).map(|shown| shown.messages.clone())
    }

    /// The session's key, as the proxy makes it of the credential.
    pub fn key(session: &Session) -> SessionKey {
        let credential = format!("Bearer {}", session.principal);
        let mut digest = Sha256::new();
        for part in ["authorization", &credential] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        let name = format!("authorization:{}", BASE64_URL_SAFE_NO_PAD.encode(digest.finalize()));
        SessionKey::new(common::store::NAMESPACE, Principal::new(name), session.id.parse().unwrap())
    }

    /// Notes what it is shown, and answers with a number of its own, some words, and where it belongs; now and
    /// then it fails.
    fn answer(&self, seen: &Seen) -> Reply {
        let op: usize = seen.header("x-op").unwrap().parse().unwrap();
        let session = seen.header("x-tag").unwrap();
        let mut dice = Random::of(self.plan.seed, 2_000_000 + op as u64);
        let number = self.replies.fetch_add(1, Ordering::SeqCst);
        let words = "and ".repeat(dice.below(12));
        let text = format!("a{number} {words}so on @{session}");
        let broken = dice.one_in(30);
        let messages = seen.messages().iter().map(said).collect();
        let at = self.now();
        let shown = Shown { op, at, number, messages, reply: text.clone(), broken };
        self.shown.lock().unwrap().push(shown);

        if broken && dice.one_in(2) {
            return Reply::error(http::StatusCode::INTERNAL_SERVER_ERROR, "not now");
        }
        let stream = seen.json()["stream"] == true;
        let reply = if stream { Reply::stream(&text) } else { Reply::text(&text) };
        let half = reply.steps.len() / 2;
        let mut steps = Vec::new();
        for (place, step) in reply.steps.iter().cloned().enumerate() {
            if broken && place == half {
                steps.push(Step::Cut);
                break;
            }
            if dice.one_in(4) {
                steps.push(Step::Pause(dice.millis(4)));
            }
            steps.push(step);
        }
        Reply { steps, ..reply }.after(Step::Pause(dice.millis(6)))
    }

    /// Everything that happened, with what the store holds now.
    async fn close(&self, rewinds: Vec<Span>) -> History {
        let mut ops = std::mem::take(&mut *self.ops.lock().unwrap());
        ops.sort_by_key(|op| op.number);
        let shown = std::mem::take(&mut *self.shown.lock().unwrap());
        let sessions: BTreeSet<&Session> = ops.iter().map(|op| &op.session).collect();
        let mut logs = std::collections::BTreeMap::new();
        for session in sessions {
            logs.insert(session.clone(), self.stored(session).await);
        }
        History { ops, shown, logs, rewinds }
    }

    async fn stored(&self, session: &Session) -> Vec<Stored> {
        let key = Self::key(session);
        let loaded = within("the store to answer", async {
            loop {
                match self.direct.load_dyn(&key, None.into()).await {
                    Ok(loaded) => return loaded,
                    Err(error) if error.is_transient() => {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    Err(error) => panic!("{session} cannot be read: {error:?}"),
                }
            }
        });
        loaded.await.records.iter().map(stored).collect()
    }
}

fn stored(record: &Record) -> Stored {
    let turn = record.turn().expect("the log holds turns");
    let read = |message: &Item| said(&serde_json::from_slice(message.raw()).unwrap_or_default());
    let mut sent: Vec<Said> = turn.items().map(|message| read(&message)).collect();
    let reply = sent.pop().unwrap_or_else(|| Said::new(Role::Other, "an envelope"));
    Stored {
        id: turn.id(),
        parent: record.parent(),
        instructions: turn.instructions().map(|message| read(&message)).collect(),
        sent,
        reply,
        interrupted: turn.state() == TurnState::Interrupted,
    }
}

fn said(message: &serde_json::Value) -> Said {
    let role = match message["role"].as_str() {
        Some("system") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        _ => Role::Other,
    };
    match message["content"].as_str() {
        Some(text) => Said::new(role, text),
        None => Said::new(Role::Other, message.to_string()),
    }
}
