//! What the clients, the upstream and the faults of one history share.

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
use tokio::sync::watch;
use tower_session_memory::{
    history::{Item, Record, TurnState},
    session::{Principal, SessionKey},
    store::DynHistoryStore,
};

use crate::linearity::history::{History, Op, Role, Said, Session, Shown, Span, Stored, Time};
use crate::{
    common::random::Random,
    common::{self, Reply, Seen, Step, within},
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

impl World {
    pub fn new(plan: &Plan, direct: Arc<dyn DynHistoryStore>) -> Self {
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
    pub fn answer(&self, seen: &Seen) -> Reply {
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
    pub async fn close(&self, rewinds: Vec<Span>) -> History {
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
