//! Memory: what a target holds while streams are open.

use std::{sync::Arc, time::Duration};

use http::HeaderValue;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::task::JoinSet;

use crate::{
    chat::{self, Ask, Manner, SEEN_BYTES, SEEN_MESSAGES, TEXT},
    client::{self, Expected, Load, PATH, Sender},
    error::BoxError,
    options::Options,
    rows::{Block, Row, mebibytes},
    scenarios::Group,
    targets::{
        Target::{self, Bare, Memory, Nginx, Pass, Postgres, Redis, Sqlite, Uncached},
        World,
    },
};

/// Numbers of open streams at which each target is measured.
pub(crate) const LEVELS: [usize; 3] = [100, 300, 1000];

/// Turns of the conversations, and the targets that hold them. The old turns in the store `memory` are its own data.
const KINDS: [(usize, &[Target]); 2] = [
    (0, &[Bare, Nginx, Pass, Memory, Sqlite, Redis, Postgres]),
    (TURNS, &[Bare, Nginx, Pass, Redis, Uncached]),
];
const TURNS: usize = 200;

/// Connections over which conversations are brought to their depth.
const SEEDERS: usize = 64;

pub(crate) fn name(turns: usize, streams: usize) -> String {
    format!("{streams} open streams t={turns}")
}

/// # Errors
///
/// When a stream does not begin as it should.
pub(crate) async fn measure(world: &World, options: &Options) -> Result<Vec<Row>, BoxError> {
    let mut rows = Vec::new();
    for (turns, targets) in KINDS {
        if LEVELS.iter().any(|streams| options.wants(&name(turns, *streams))) {
            let targets = world.present(targets, options);
            rows.extend(kind(turns, &targets, world, options).await?);
        }
    }
    Ok(rows)
}

async fn kind(
    turns: usize,
    targets: &[Target],
    world: &World,
    options: &Options,
) -> Result<Vec<Row>, BoxError> {
    if targets.contains(&Redis) && turns > 0 {
        seed(turns, world, options).await?;
    }
    let asks = chat::asks(turns, Manner::Held, |_| TEXT);
    let ask = asks.last().ok_or("nothing is asked")?;
    let row = |target: Target, streams| Row {
        group: Group::Streams,
        scenario: name(turns, streams),
        target,
        concurrency: streams,
        bytes: ask.whole.len(),
        blocks: Vec::new(),
    };
    let mut rows: Vec<Row> =
        targets.iter().flat_map(|target| LEVELS.map(|streams| row(*target, streams))).collect();
    for repetition in 0..options.repetitions {
        options.tell(&format!("open streams t={turns}"), repetition, 1);
        for (place, target) in targets.iter().enumerate() {
            let sessions = match turns {
                0 => format!("held-{repetition}"),
                _ => SEEDED.to_owned(),
            };
            let blocks = hold(*target, ask, &sessions, world, options).await;
            let blocks = blocks.map_err(|error| format!("{}: {error}", target.name()))?;
            for (row, block) in rows[place * LEVELS.len()..].iter_mut().zip(blocks) {
                row.blocks.push(block);
            }
        }
    }
    Ok(rows)
}

/// The names of the sessions in Redis that have their turns.
const SEEDED: &str = "held-seeded";

async fn seed(turns: usize, world: &World, options: &Options) -> Result<(), BoxError> {
    eprintln!("open streams: {turns} turns for each session");
    let process = world.process(Redis, &[])?.ok_or("no proxy")?;
    let load = Load {
        address: process.address,
        concurrency: SEEDERS,
        conversations: LEVELS[LEVELS.len() - 1] / options.smaller,
        depths: 0..turns,
        asks: Arc::new(chat::asks(turns, Manner::Json, |_| TEXT)),
        session: Some(SEEDED.to_owned()),
        expected: Expected::of(Manner::Json, false),
    };
    drop(load.run().await?);
    Ok(())
}

/// A new process of the target, and its memory with more and more open streams.
async fn hold(
    target: Target,
    ask: &Ask,
    sessions: &str,
    world: &World,
    options: &Options,
) -> Result<Vec<Block>, BoxError> {
    let mut connections = JoinSet::new();
    let mut open = Vec::new();
    // Ends before its connections do: a client that leaves would have the turn stored as interrupted.
    let process = world.process(target, &[])?.ok_or("no process")?;
    let mut blocks = Vec::new();
    for streams in LEVELS.map(|streams| (streams / options.smaller).max(1)) {
        while open.len() < streams {
            let session = HeaderValue::try_from(format!("{sessions}-{}", open.len()))?;
            let sender = client::connect(process.address, &mut connections).await?;
            open.push(begin(sender, ask, target.remembers().then_some(&session)).await?);
        }
        // What the last requests left behind.
        tokio::time::sleep(Duration::from_millis(100)).await;
        blocks.push(Block {
            requests: streams,
            at_rest: process.at_rest.map(mebibytes),
            memory: process.memory().map(mebibytes),
            ..Block::default()
        });
    }
    drop(process);
    Ok(blocks)
}

/// A stream that has begun, and will not end. Its request is checked as all are.
async fn begin(
    mut sender: Sender,
    ask: &Ask,
    session: Option<&HeaderValue>,
) -> Result<(Sender, Incoming), BoxError> {
    let body = if session.is_some() { &ask.delta } else { &ask.whole };
    let (head, mut body) = client::send(&mut sender, PATH, session, body.clone()).await?.into_parts();
    let seen = |name| head.headers.get(name)?.to_str().ok()?.parse::<usize>().ok();
    let (messages, bytes) = (seen(SEEN_MESSAGES), seen(SEEN_BYTES));
    if messages != Some(ask.messages) || bytes != Some(ask.whole.len()) {
        return Err(format!("{}: upstream saw {messages:?} messages in {bytes:?} bytes", head.status).into());
    }
    body.frame().await.ok_or("a stream has no beginning")??;
    Ok((sender, body))
}
