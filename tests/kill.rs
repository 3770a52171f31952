//! The proxy dies, again and again, under load; nothing that a client saw end is lost, doubled or torn.
//!
//! Clients hold conversations, half of them as streams, and note every turn whose end they saw. Processes are
//! killed with `kill -9` at random times, or abort at named points (feature `failpoints`). After the last
//! death the store is read through the library and compared with what the clients noted.
//!
//! `SESSION_MEMORY_KILLS` sets the number of random kills; 20 by default.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "the counts are the result")]

mod common;

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use common::*;
use tokio::{sync::watch, task::JoinSet};

/// Clients at work at the same time.
const CLIENTS: usize = 6;
/// After so many turns a client starts another session: histories stay inside the window.
const TURNS_A_SESSION: usize = 40;

#[tokio::test]
async fn nothing_acknowledged_is_lost_doubled_or_torn_by_kill_9_at_random_times() {
    let world = World::start(1).await;
    for _ in 0..kills() {
        world.run_for(random(5..250)).await;
        world.replace(0, |proxy| async move { proxy.kill().await }).await;
    }
    world.check("kill -9 of one proxy").await;
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_doubled_or_torn_with_two_proxies_on_one_file() {
    let world = World::start(2).await;
    for round in 0..kills() {
        world.run_for(random(5..250)).await;
        world.replace(round % 2, |proxy| async move { proxy.kill().await }).await;
    }
    world.check("kill -9 of two proxies on one file, in turn").await;
}

/// Where in a turn's life the process aborts itself. The names are those of `src/failpoint.rs`.
#[cfg(feature = "failpoints")]
const POINTS: [&str; 8] =
    ["before-load", "loaded", "forwarded", "mid-stream", "before-commit", "committing", "committed", "ended"];

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn nothing_acknowledged_is_lost_doubled_or_torn_by_a_death_at_any_point_of_a_turn() {
    use std::os::unix::process::ExitStatusExt;

    const SIGABRT: i32 = 6;
    let world = World::start(1).await;
    for point in POINTS {
        for nth in [1, 2, 17] {
            let doomed = |proxy: Proxy| async move {
                proxy.kill().await.env("SESSION_MEMORY_ABORT_AT", &format!("{point}:{nth}"))
            };
            world.replace(0, doomed).await;
            world
                .replace(0, |proxy| async move {
                    let launch = proxy.launch().sibling();
                    println!("waiting for the death at {point}:{nth}");
                    let ended = proxy.ended().await;
                    assert_eq!(ended.status.signal(), Some(SIGABRT), "{point}:{nth} was reached: {ended:?}");
                    launch
                })
                .await;
        }
    }
    world.check("deaths at named points").await;
}

/// The upstream, the proxies on one store, the clients, and what they saw.
struct World {
    upstream: Upstream,
    launch: Launch,
    proxies: Mutex<Vec<Option<Proxy>>>,
    addresses: watch::Sender<Vec<Option<SocketAddr>>>,
    notes: Arc<Mutex<Vec<Note>>>,
    stop: Arc<AtomicBool>,
    clients: tokio::sync::Mutex<JoinSet<()>>,
    deaths: Mutex<usize>,
}

/// What a client knows of one of its turns.
#[derive(Debug, Clone)]
struct Note {
    session: String,
    text: String,
    /// Whether the client saw the turn's end.
    ended: bool,
    /// Whether the model was then shown fewer turns than the client had seen to end.
    forgotten: bool,
}

impl World {
    async fn start(proxies: usize) -> Self {
        let upstream = Upstream::start_with(slow_echo).await.unwrap();
        let launch = Launch::new(&upstream.url());
        let mut running = Vec::new();
        for _ in 0..proxies {
            running.push(Some(launch.sibling().start().await));
        }
        let addresses = running.iter().map(|proxy| proxy.as_ref().map(Proxy::addr)).collect();
        let world = Self {
            upstream,
            launch,
            proxies: Mutex::new(running),
            addresses: watch::Sender::new(addresses),
            notes: Arc::default(),
            stop: Arc::default(),
            clients: tokio::sync::Mutex::default(),
            deaths: Mutex::default(),
        };
        let mut clients = world.clients.lock().await;
        for number in 0..CLIENTS {
            let client = Client {
                number,
                addresses: world.addresses.subscribe(),
                notes: world.notes.clone(),
                stop: world.stop.clone(),
            };
            clients.spawn(client.run());
        }
        drop(clients);
        world
    }

    async fn run_for(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Ends a proxy in the given way and starts its successor on the same store.
    async fn replace<F: Future<Output = Launch>>(&self, index: usize, end: impl FnOnce(Proxy) -> F) {
        let proxy = self.proxies.lock().unwrap()[index].take().expect("the proxy runs");
        let launch = end(proxy).await;
        *self.deaths.lock().unwrap() += 1;
        self.addresses.send_modify(|all| all[index] = None);
        let proxy = launch.start().await;
        self.addresses.send_modify(|all| all[index] = Some(proxy.addr()));
        self.proxies.lock().unwrap()[index] = Some(proxy);
    }

    /// Stops the clients and the proxies, and compares the notes with the store.
    async fn check(self, what: &str) {
        self.run_for(Duration::from_millis(200)).await;
        self.stop.store(true, Ordering::SeqCst);
        let mut clients = self.clients.lock().await;
        while let Some(client) = within("the clients to finish", clients.join_next()).await {
            client.unwrap();
        }
        let proxies: Vec<Proxy> = self.proxies.lock().unwrap().drain(..).flatten().collect();
        for proxy in proxies {
            proxy.kill().await;
        }
        let deaths = *self.deaths.lock().unwrap();
        let notes = std::mem::take(&mut *self.notes.lock().unwrap());
        let findings = compare(&notes, &store::open(&self.launch.store_path()).await).await;
        println!("{what}: {deaths} deaths, {findings}");
        assert!(findings.ended > deaths, "there was load: {findings}");
        assert_eq!(findings.faults(), 0, "{findings}");
        drop(self.upstream);
    }
}

/// One client: it holds conversations until it is told to stop, and checks that it is remembered.
struct Client {
    number: usize,
    addresses: watch::Receiver<Vec<Option<SocketAddr>>>,
    notes: Arc<Mutex<Vec<Note>>>,
    stop: Arc<AtomicBool>,
}

impl Client {
    async fn run(mut self) {
        let (mut session, mut ended) = (0, 0);
        for turn in 0.. {
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            if turn % TURNS_A_SESSION == 0 {
                (session, ended) = (session + 1, 0);
            }
            let name = format!("c{}-{session}", self.number);
            let text = format!("{name} says {turn}");
            let said = self.say(&name, &text, turn).await;
            ended += usize::from(said.is_some());
            let mut forgotten = false;
            if let Some(said) = &said {
                let things = said.split(' ').nth(2).and_then(|count| count.parse::<usize>().ok());
                forgotten = things < Some(ended);
                assert!(said.ends_with(&format!(": {text}")), "the reply is this turn's: {said}");
            }
            self.notes.lock().unwrap().push(Note { session: name, text, ended: said.is_some(), forgotten });
        }
    }

    /// One turn; the reply if its end was seen. Two proxies are asked in turn.
    async fn say(&mut self, session: &str, text: &str, turn: usize) -> Option<String> {
        let addr = self.address(turn).await;
        let stream = (turn + self.number).is_multiple_of(2);
        let messages = [user(text)];
        let body = if stream { stream_body(&messages) } else { body(&messages) };
        let answer = Post::chat(body).session(session).try_send(addr).await.ok()?;
        let whole = answer.status == 200
            && answer.end == End::Clean
            && (!stream || answer.text().ends_with("data: [DONE]\n\n"));
        // A process that dies takes its connections with it; whoever lives answers, and answers well.
        assert!(answer.status == 200 || answer.status >= 500, "{}: {}", answer.status, answer.text());
        whole.then(|| answer.said())
    }

    async fn address(&mut self, turn: usize) -> SocketAddr {
        let all = self.addresses.wait_for(|all| all.iter().any(Option::is_some)).await.unwrap();
        let alive: Vec<_> = all.iter().flatten().copied().collect();
        alive[turn % alive.len()]
    }
}

/// What the comparison found.
#[derive(Debug, Default)]
struct Findings {
    sent: usize,
    ended: usize,
    stored: usize,
    lost: usize,
    doubled: usize,
    torn: usize,
    disordered: usize,
    unknown: usize,
    forgotten: usize,
}

impl Findings {
    fn faults(&self) -> usize {
        self.lost + self.doubled + self.torn + self.disordered + self.unknown + self.forgotten
    }
}

impl std::fmt::Display for Findings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} turns sent, {} seen to end, {} stored; \
             {} lost, {} doubled, {} torn, {} out of order, {} never sent, {} missing from the next request",
            self.sent,
            self.ended,
            self.stored,
            self.lost,
            self.doubled,
            self.torn,
            self.disordered,
            self.unknown,
            self.forgotten
        )
    }
}

async fn compare(notes: &[Note], store: &tower_session_memory::store::SqliteStore) -> Findings {
    let mut sessions: BTreeMap<&str, Vec<&Note>> = BTreeMap::new();
    for note in notes {
        sessions.entry(&note.session).or_default().push(note);
    }
    let mut findings = Findings { sent: notes.len(), ..Findings::default() };
    for (session, notes) in sessions {
        let turns = store::load(store, session).await;
        findings.stored += turns.len();
        let mut places: HashMap<String, Vec<usize>> = HashMap::new();
        for (place, turn) in turns.iter().enumerate() {
            findings.torn += usize::from(!is_whole(turn));
            places.entry(turn.texts().swap_remove(0)).or_default().push(place);
        }
        let mut newest = None;
        for note in notes {
            let places = places.remove(&note.text).unwrap_or_default();
            findings.ended += usize::from(note.ended);
            findings.forgotten += usize::from(note.forgotten);
            findings.lost += usize::from(note.ended && places.is_empty());
            findings.doubled += usize::from(places.len() > 1);
            // A client sends one turn after the other, so they stand in the log in the order of sending.
            // One that broke off is excused: its append may still have been on its way.
            if note.ended {
                findings.disordered += usize::from(places.first().copied() < newest);
                newest = places.first().copied().max(newest);
            }
        }
        findings.unknown += places.len();
    }
    findings
}

/// Whether a stored turn is one question and the whole of its answer.
fn is_whole(turn: &Stored) -> bool {
    let texts = turn.texts();
    let [question, answer] = texts.as_slice() else { return false };
    turn.is_complete() && answer.starts_with("You said ") && answer.ends_with(&format!(": {question}"))
}

/// [`echo`] with a little time before and within its replies, so that deaths fall everywhere.
fn slow_echo(seen: &Seen) -> Reply {
    let reply = echo(seen);
    let steps = reply.steps.iter().cloned();
    let steps = steps.flat_map(|step| [Step::Pause(random(0..3)), step]).collect();
    Reply { steps, ..reply }.after(Step::Pause(random(0..5)))
}

/// A random number of milliseconds.
fn random(range: std::ops::Range<u64>) -> Duration {
    // A new `RandomState` has new keys: as random as this needs to be.
    let random = RandomState::new().hash_one(0);
    Duration::from_millis(range.start + random % (range.end - range.start))
}

fn kills() -> usize {
    std::env::var("SESSION_MEMORY_KILLS")
        .map_or(20, |kills| kills.parse().expect("SESSION_MEMORY_KILLS is a number"))
}
