//! Deletions against streams in flight, through layers on two handles of the same store, as two replicas have.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::Sleep};
use tower::{Layer, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_session_memory::{
    OnAppendError, RequestBody, ResponseBody, SessionMemoryLayer,
    session::SessionKey,
    store::{Cached, DynHistoryStore, HistoryStore, InMemoryStore, SqliteStore},
    testing::upstream::Chunk,
};

use crate::storm::{PATIENCE, deletions, postgres, redis};
use crate::{
    common::random::Random,
    common::{assistant, stream_body, user},
    servers::{Cluster, Postgres, Redis},
    turns::key_of,
};

/// Rounds at the same time, each with a session of its own.
const TASKS: u64 = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_sessions_stay_deleted_in_memory() {
    let store = Arc::new(InMemoryStore::new());
    stays_deleted("in memory", store.clone(), store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_sessions_stay_deleted_in_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sessions.db");
    let open = || async { SqliteStore::builder(&path).with_busy_timeout(PATIENCE).open().await.unwrap() };
    stays_deleted("SQLite", Arc::new(open().await), Arc::new(open().await)).await;
    stays_deleted("SQLite, cached", cached(open().await), cached(open().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_sessions_stay_deleted_in_redis() {
    let server = Redis::start();
    on_redis("Redis", &server.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_sessions_stay_deleted_in_a_cluster() {
    let cluster = Cluster::start();
    on_redis("Cluster", &cluster.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_sessions_stay_deleted_in_postgres() {
    let server = Postgres::start();
    let open = || async { postgres(server.url()).open().await.unwrap() };
    stays_deleted("Postgres", Arc::new(open().await), Arc::new(open().await)).await;
    stays_deleted("Postgres, cached", cached(open().await), cached(open().await)).await;
}

async fn on_redis(name: &str, url: &str) {
    let open = || async { redis(url).open().await.unwrap() };
    stays_deleted(name, Arc::new(open().await), Arc::new(open().await)).await;
    stays_deleted(&format!("{name}, cached"), cached(open().await), cached(open().await)).await;
}

fn cached(store: impl HistoryStore + 'static) -> Arc<dyn DynHistoryStore> {
    Arc::new(Cached::new(store))
}

async fn stays_deleted(name: &str, here: Arc<dyn DynHistoryStore>, there: Arc<dyn DynHistoryStore>) {
    let race = Arc::new(Race::between(here, there));
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        tasks.spawn(Arc::clone(&race).run(name.to_owned(), task));
    }
    tasks.join_all().await;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "{name}: {} deletions met streams in flight, {} did not; of {} streams {} were stored after all; 0 \
         resurrections",
        count(&race.met),
        count(&race.missed),
        count(&race.streams),
        count(&race.stored),
    );
}

type App = BoxCloneSyncService<Request<Full<Bytes>>, Response<ResponseBody<Slow>>, Infallible>;

struct Race {
    app: App,
    here: Arc<dyn DynHistoryStore>,
    /// Where deletions go.
    there: Arc<dyn DynHistoryStore>,
    clock: Arc<AtomicU64>,
    /// When the upstream saw a question.
    seen: Arc<Mutex<HashMap<String, u64>>>,
    met: AtomicU64,
    missed: AtomicU64,
    streams: AtomicU64,
    stored: AtomicU64,
}

impl Race {
    fn between(here: Arc<dyn DynHistoryStore>, there: Arc<dyn DynHistoryStore>) -> Self {
        let clock = Arc::new(AtomicU64::new(0));
        let seen: Arc<Mutex<HashMap<String, u64>>> = Arc::default();
        let (time, log) = (Arc::clone(&clock), Arc::clone(&seen));
        let upstream = service_fn(move |request: Request<RequestBody<Full<Bytes>>>| {
            let (time, log) = (Arc::clone(&time), Arc::clone(&log));
            async move {
                let body = request.into_body().collect().await.expect("the body is there").to_bytes();
                let body: Value = serde_json::from_slice(&body).expect("the body is JSON");
                let question = body["messages"].as_array().and_then(|all| all.last()).cloned();
                let question =
                    question.unwrap_or_default()["content"].as_str().unwrap_or_default().to_owned();
                let now = time.fetch_add(1, Ordering::SeqCst);
                log.lock().unwrap().insert(question.clone(), now);
                Ok::<_, Infallible>(Slow::reply(&question, now))
            }
        });
        // How long a busy machine takes is not what is asked here.
        let layer = SessionMemoryLayer::from_arc(Arc::clone(&here))
            .on_append_error(OnAppendError::Cut)
            .with_load_timeout(PATIENCE)
            .with_commit_wait(PATIENCE);
        Self {
            app: BoxCloneSyncService::new(layer.layer(upstream)),
            here,
            there,
            clock,
            seen,
            met: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            streams: AtomicU64::new(0),
            stored: AtomicU64::new(0),
        }
    }

    async fn run(self: Arc<Self>, name: String, task: u64) {
        let mut dice = Random::of(3, task);
        for round in 0_u64.. {
            if self.met.load(Ordering::Relaxed) >= deletions() {
                return;
            }
            let key = key_of("somebody", &format!("{}-{task}-{round}", name.replace([' ', ','], "")));
            Arc::clone(&self).round(&key, &mut dice).await;
        }
    }

    /// Some turns, streams, a deletion amid them; then a look at what is there.
    async fn round(self: Arc<Self>, key: &SessionKey, dice: &mut Random) {
        let id = key.id().as_str();
        let mut history = Vec::new();
        for turn in 0..dice.below(3) {
            let question = format!("{id} before {turn}");
            let reply = self.ask(key, vec![user(&question)], None).await.expect("nothing disturbs it");
            history.extend([user(&question), assistant(&reply)]);
        }
        let mut streams = JoinSet::new();
        let mut questions = Vec::new();
        for stream in 0..=dice.below(3) {
            let question = format!("{id} amid {stream}");
            questions.push(question.clone());
            let (control, messages) = match dice.below(4) {
                0 => (Some("reset"), vec![user(&question)]),
                // An edit: its parent is a turn of what is deleted.
                1 if history.len() == 4 => (None, [&history[..2], &[user(&question)]].concat()),
                _ => (None, vec![user(&question)]),
            };
            let (race, key) = (Arc::clone(&self), key.clone());
            streams.spawn(async move {
                let ended = race.ask(&key, messages, control).await.is_some();
                (question, ended, race.clock.fetch_add(1, Ordering::SeqCst))
            });
        }
        // Most of the time is spent in the streams.
        match dice.below(3) {
            0 => tokio::time::sleep(dice.millis(6)).await,
            _ => {
                let amid = dice.below(questions.len());
                let asked = async {
                    while !self.seen.lock().unwrap().contains_key(&questions[amid]) {
                        tokio::task::yield_now().await;
                    }
                };
                tokio::time::timeout(PATIENCE, asked).await.expect("the upstream is asked");
                tokio::time::sleep(dice.millis(4)).await;
            }
        }
        let from = self.clock.fetch_add(1, Ordering::SeqCst);
        self.there.delete_dyn(key).await.expect("the deletion succeeds");
        let to = self.clock.fetch_add(1, Ordering::SeqCst);

        let streams = streams.join_all().await;
        let (here, there) = (questions_in(&self.here, key).await, questions_in(&self.there, key).await);
        assert_eq!(here, there, "two replicas see the same");
        let of_before = here.iter().find(|question| question.starts_with(&format!("{id} before")));
        assert_eq!(of_before, None, "a deleted turn is back");
        let mut met = false;
        for (question, ended, returned) in streams {
            let asked = self.seen.lock().unwrap().remove(&question).expect("the upstream was asked");
            met |= asked < from && returned > from;
            let is_there = here.contains(&question);
            self.streams.fetch_add(1, Ordering::Relaxed);
            self.stored.fetch_add(u64::from(is_there), Ordering::Relaxed);
            assert!(asked > from || !is_there, "{question}: it was built on what was deleted");
            assert!(!(asked > to && ended) || is_there, "{question}: it was asked after the deletion");
        }
        let counter = if met { &self.met } else { &self.missed };
        counter.fetch_add(1, Ordering::Relaxed);

        let question = format!("{id} after");
        self.ask(key, vec![user(&question)], None).await.expect("a deleted session takes new turns");
        let mut after = here;
        after.push(question);
        assert_eq!(questions_in(&self.there, key).await, after, "what is there goes on");
    }

    /// The reply, if its end was seen.
    async fn ask(
        &self,
        key: &SessionKey,
        messages: Vec<Value>,
        control: Option<&'static str>,
    ) -> Option<String> {
        let mut request = Request::post("/v1/chat/completions")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(stream_body(&messages)))
            .unwrap();
        request.extensions_mut().insert(key.clone());
        if let Some(control) = control {
            request.headers_mut().insert("session-memory", HeaderValue::from_static(control));
        }
        let response = self.app.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
        assert!(response.status().is_success(), "{response:?}");
        response.into_body().collect().await.ok()?;
        let question = messages.last()?["content"].as_str()?;
        Some(answer_to(question))
    }
}

fn answer_to(question: &str) -> String {
    format!("the answer to {question}")
}

/// What was asked in a session.
async fn questions_in(store: &Arc<dyn DynHistoryStore>, key: &SessionKey) -> Vec<String> {
    let loaded = store.load_dyn(key, None.into()).await.expect("the store answers");
    let last = |turn: &tower_session_memory::history::Record| {
        let turn = turn.turn().expect("the log holds turns");
        let asked = turn.items().take(turn.sent()).last().expect("a turn has a question");
        let asked: Value = serde_json::from_slice(asked.raw()).expect("it is JSON");
        asked["content"].as_str().unwrap_or_default().to_owned()
    };
    loaded.records.iter().map(last).collect()
}

/// A stream that takes its time.
struct Slow {
    frames: VecDeque<Bytes>,
    pause: Pin<Box<Sleep>>,
    dice: Random,
}

impl Slow {
    fn reply(question: &str, seed: u64) -> Response<Self> {
        let chunks = [
            Chunk::delta(&json!({"role": "assistant", "content": ""})),
            Chunk::delta(&json!({"content": answer_to(question)})),
            Chunk::finish("stop"),
        ];
        let done = Bytes::from_static(b"data: [DONE]\n\n");
        let frames = chunks.iter().map(Chunk::event).chain([done]).collect();
        let mut dice = Random::new(seed);
        let pause = Box::pin(tokio::time::sleep(dice.millis(2)));
        let mut response = Response::new(Self { frames, pause, dice });
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        response
    }
}

impl Body for Slow {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        ready!(self.pause.as_mut().poll(context));
        let pause = self.dice.millis(2);
        self.pause.as_mut().reset(tokio::time::Instant::now() + pause);
        Poll::Ready(self.frames.pop_front().map(|frame| Ok(Frame::data(frame))))
    }
}
