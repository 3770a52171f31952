//! Clients that leave the real binary at random points, while others stay.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::task::JoinSet;

use crate::storm::cancellations;
use crate::{
    common::random::Random,
    common::{LIMIT, Launch, Post, Proxy, Reply, Step, Upstream, body, stream_body, user, within},
    servers::{Cluster, Postgres, Redis},
};

const LEAVING: u64 = 8;
const STAYING: u64 = 4;
const TURNS_A_SESSION: u64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_leave_disturb_nobody_on_redis() {
    let server = Redis::start();
    undisturbed("Redis", &server.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_leave_disturb_nobody_on_a_cluster() {
    let cluster = Cluster::start();
    undisturbed("Cluster", &cluster.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_leave_disturb_nobody_on_postgres() {
    let server = Postgres::start();
    undisturbed("Postgres", &server.url()).await;
}

#[derive(Default)]
struct Counts {
    left: AtomicU64,
    ended: AtomicU64,
    messages: AtomicU64,
    foreign: AtomicU64,
}

async fn undisturbed(name: &str, store: &str) {
    let counts = Arc::new(Counts::default());
    let upstream = upstream(Arc::clone(&counts)).await;
    let proxy = Arc::new(Launch::new(&upstream.url()).store(store).start().await);
    let mut clients = JoinSet::new();
    for number in 0..LEAVING + STAYING {
        clients.spawn(client(number, Arc::clone(&proxy), Arc::clone(&counts)));
    }
    tokio::time::timeout(10 * LIMIT, clients.join_all()).await.expect("the clients finish");
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "{name}, the real binary: {} clients left, {} turns ended; {} messages shown to the upstream, {} foreign",
        count(&counts.left),
        count(&counts.ended),
        count(&counts.messages),
        count(&counts.foreign),
    );
    assert_eq!(count(&counts.foreign), 0, "a message of another session was shown to the upstream");
}

/// Answers with the name of the session, and looks for messages that do not have it.
async fn upstream(counts: Arc<Counts>) -> Upstream {
    let upstream = Upstream::start_with(move |seen| {
        let tag = seen.header("x-tag").unwrap_or_default().to_owned();
        let messages = seen.messages();
        counts.messages.fetch_add(messages.len() as u64, Ordering::Relaxed);
        let foreign = messages.iter().filter(|message| {
            !message["content"].as_str().is_some_and(|text| text.starts_with(&format!("{tag} ")))
        });
        counts.foreign.fetch_add(foreign.count() as u64, Ordering::Relaxed);
        let text = format!("{tag} was told {} things before, and goes on and on", messages.len() - 1);
        let reply = if seen.json()["stream"] == true { Reply::stream(&text) } else { Reply::text(&text) };
        let mut dice = Random::new(messages.len() as u64);
        let steps =
            reply.steps.iter().cloned().flat_map(|step| [Step::Pause(dice.millis(2)), step]).collect();
        Reply { steps, ..reply }
    });
    upstream.await.unwrap()
}

async fn client(number: u64, proxy: Arc<Proxy>, counts: Arc<Counts>) {
    let wanted = cancellations() / 20;
    let mut dice = Random::of(2, number);
    for session in 0_u64.. {
        let tag = format!("s{number}-{session}");
        let mut ended = 0;
        for turn in 0..TURNS_A_SESSION {
            if counts.left.load(Ordering::Relaxed) >= wanted {
                return;
            }
            let messages = [user(&format!("{tag} {turn}"))];
            let body = if dice.one_in(2) { stream_body(&messages) } else { body(&messages) };
            // All clients use the same few names, under credentials of their own.
            let post = Post::chat(body).session(&format!("session-{session}")).header("x-tag", &tag);
            let post = post.header("authorization", format!("Bearer {number}"));
            let answer = post.try_send(proxy.addr());
            if number < LEAVING && dice.one_in(2) {
                // What is left unread is dropped with its connection.
                if tokio::time::timeout(dice.millis(25), answer).await.is_err() {
                    counts.left.fetch_add(1, Ordering::Relaxed);
                }
                continue;
            }
            let answer = within("an answer", answer).await.expect("the proxy answers").ok();
            counts.ended.fetch_add(1, Ordering::Relaxed);
            let said = answer.said();
            assert!(said.starts_with(&format!("{tag} was told ")), "the answer to another: {said}");
            let before: u64 = said.split(' ').nth(3).and_then(|count| count.parse().ok()).unwrap();
            assert!(
                before >= 2 * ended,
                "{ended} turns had ended, and the upstream was shown {before} messages"
            );
            ended += 1;
        }
    }
}
