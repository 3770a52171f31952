//! Proxies on one store, clients at work, and what these saw.

use std::{
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, task::JoinSet};
use tower_session_memory::store::DynHistoryStore;

use super::findings::{Note, compare};
use crate::common::*;

/// Clients at work at the same time.
const CLIENTS: usize = 6;
/// Turns after which a client starts another session: histories stay inside the window.
const TURNS_A_SESSION: usize = 40;

/// Where in a turn's life the process aborts itself, whatever the store. The names are those of
/// `src/failpoint.rs`.
#[cfg(feature = "failpoints")]
pub(crate) const POINTS: &[&str] =
    &["before-load", "loaded", "forwarded", "mid-stream", "before-commit", "committed", "ended"];

/// The upstream, the proxies on one store, the clients, and what they saw.
pub(crate) struct World {
    _upstream: Upstream,
    launch: Launch,
    proxies: Mutex<Vec<Option<Proxy>>>,
    addresses: watch::Sender<Vec<Option<SocketAddr>>>,
    notes: Arc<Mutex<Vec<Note>>>,
    stop: Arc<AtomicBool>,
    clients: tokio::sync::Mutex<JoinSet<()>>,
    deaths: AtomicUsize,
}

impl World {
    /// Starts `proxies` proxies on one SQLite file.
    pub(crate) async fn on_a_file(proxies: usize) -> Self {
        Self::start(proxies, |launch| launch).await
    }

    /// Starts `proxies` proxies as the closure says, which sets above all [`Launch::store`]. Where the store's server
    /// dies, too, what cannot be stored must be cut, or an end that was seen would not mean stored.
    pub(crate) async fn start(proxies: usize, change: impl FnOnce(Launch) -> Launch) -> Self {
        let upstream = Upstream::start_with(slow_echo).await.unwrap();
        let launch = change(Launch::new(&upstream.url()));
        let mut running = Vec::new();
        for _ in 0..proxies {
            running.push(Some(launch.sibling().start().await));
        }
        let addresses = running.iter().map(|proxy| proxy.as_ref().map(Proxy::addr)).collect();
        let world = Self {
            _upstream: upstream,
            launch,
            proxies: Mutex::new(running),
            addresses: watch::Sender::new(addresses),
            notes: Arc::default(),
            stop: Arc::default(),
            clients: tokio::sync::Mutex::default(),
            deaths: AtomicUsize::new(0),
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

    pub(crate) async fn run_for(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Waits until clients have seen `turns` more turns end: there is load.
    pub(crate) async fn more(&self, turns: usize) {
        let ended = || lock(&self.notes).iter().filter(|note| note.ended).count();
        let goal = ended() + turns;
        within("more turns to end", async {
            while ended() < goal {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    /// Counts a death that was no proxy's.
    pub(crate) fn died(&self) {
        self.deaths.fetch_add(1, Ordering::SeqCst);
    }

    /// `kill -9` of one proxy after the other, at random times: every other one as early as it may be, the rest under
    /// load.
    pub(crate) async fn kill_proxies(&self, kills: usize) {
        let proxies = lock(&self.proxies).len();
        for round in 0..kills {
            if round % 2 == 0 {
                self.more(4).await;
            }
            self.run_for(random(5..250)).await;
            self.replace(round % proxies, |proxy| async move { proxy.kill().await }).await;
        }
    }

    /// A proxy aborts itself at every one of these points, at the first, second and seventeenth turn that gets there.
    #[cfg(feature = "failpoints")]
    pub(crate) async fn die_at(&self, points: &[&str]) {
        use std::os::unix::process::ExitStatusExt;

        const SIGABRT: i32 = 6;
        for point in points {
            for nth in [1, 2, 17] {
                let doomed = |proxy: Proxy| async move {
                    proxy.kill().await.env("SESSION_MEMORY_ABORT_AT", &format!("{point}:{nth}"))
                };
                // There is load before each death.
                self.more(3).await;
                self.replace(0, doomed).await;
                self.replace(0, |proxy| async move {
                    let launch = proxy.launch().sibling();
                    println!("waiting for the death at {point}:{nth}");
                    let ended = proxy.ended().await;
                    assert_eq!(ended.status.signal(), Some(SIGABRT), "{point}:{nth} was reached: {ended:?}");
                    launch
                })
                .await;
            }
        }
    }

    /// Ends a proxy in the given way and starts its successor on the same store.
    pub(crate) async fn replace<F: Future<Output = Launch>>(
        &self,
        index: usize,
        end: impl FnOnce(Proxy) -> F,
    ) {
        let proxy = lock(&self.proxies)[index].take().expect("the proxy runs");
        let launch = end(proxy).await;
        self.died();
        self.addresses.send_modify(|all| all[index] = None);
        let proxy = launch.start().await;
        self.addresses.send_modify(|all| all[index] = Some(proxy.addr()));
        lock(&self.proxies)[index] = Some(proxy);
    }

    /// Stops the clients and the proxies, and fails unless the SQLite file holds what the notes say.
    pub(crate) async fn check_file(self, what: &str) {
        let path = self.launch.store_path();
        self.stop().await;
        self.check(what, &store::open(&path).await).await;
    }

    /// The same for another store, which is opened by the caller.
    pub(crate) async fn check(self, what: &str, store: &dyn DynHistoryStore) {
        self.stop().await;
        let deaths = self.deaths.load(Ordering::SeqCst);
        let notes = std::mem::take(&mut *lock(&self.notes));
        let findings = compare(&notes, store).await;
        println!("{what}: {deaths} deaths, {findings}");
        assert_eq!(findings.faults(), 0, "{findings}");
    }

    /// Stops the clients, then the proxies.
    async fn stop(&self) {
        self.run_for(Duration::from_millis(200)).await;
        self.stop.store(true, Ordering::SeqCst);
        let mut clients = self.clients.lock().await;
        while let Some(client) = within("the clients to finish", clients.join_next()).await {
            client.unwrap();
        }
        let proxies: Vec<Proxy> = lock(&self.proxies).drain(..).flatten().collect();
        for proxy in proxies {
            proxy.kill().await;
        }
    }
}

/// One client: holds conversations until `stop` is set, and checks that they are remembered.
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
            lock(&self.notes).push(Note { session: name, text, ended: said.is_some(), forgotten });
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
        // A process that dies takes its connections with it; a live one answers, and answers well.
        assert!(answer.status == 200 || answer.status >= 500, "{}: {}", answer.status, answer.text());
        whole.then(|| answer.said())
    }

    async fn address(&mut self, turn: usize) -> SocketAddr {
        let all = self.addresses.wait_for(|all| all.iter().any(Option::is_some)).await.unwrap();
        let alive: Vec<_> = all.iter().flatten().copied().collect();
        alive[turn % alive.len()]
    }
}

/// [`echo`] with a little time before and within its replies, so that deaths fall everywhere.
fn slow_echo(seen: &Seen) -> Reply {
    let reply = echo(seen);
    let steps = reply.steps.iter().cloned();
    let steps = steps.flat_map(|step| [Step::Pause(random(0..3)), step]).collect();
    Reply { steps, ..reply }.after(Step::Pause(random(0..5)))
}

/// A random number of milliseconds.
pub(crate) fn random(range: std::ops::Range<u64>) -> Duration {
    // A new `RandomState` has new keys: as random as this needs to be.
    let random = RandomState::new().hash_one(0);
    Duration::from_millis(range.start + random % (range.end - range.start))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}
