//! More than the upstream can take: it takes 64 requests at once, 20 ms each.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use http_body_util::BodyExt;
use tokio::task::JoinSet;

use crate::{
    chat::{self, Manner, TEXT},
    client::{self, Measured, PATH, Sample, Sender},
    error::BoxError,
    options::Options,
    process::Process,
    rows::{Block, Row, mebibytes},
    scenarios::Group,
    targets::{
        Target::{self, Bare, Limited, Memory},
        World,
    },
};

/// Clients at once; each asks again when it has its reply.
const CLIENTS: [usize; 7] = [1, 16, 64, 128, 256, 512, 1024];
const TARGETS: &[Target] = &[Bare, Memory, Limited];
/// How long each number of clients asks.
const LASTS: Duration = Duration::from_millis(600);
/// How long a client waits that was refused.
const WAITS: Duration = Duration::from_millis(100);
/// Fewer repetitions than elsewhere: these take their time whatever the target does.
const AT_MOST: usize = 3;

/// # Errors
///
/// When a request fails in another way than by being refused.
pub(crate) async fn measure(world: &World, options: &Options) -> Result<Vec<Row>, BoxError> {
    let levels: Vec<usize> =
        CLIENTS.into_iter().filter(|clients| options.wants(&format!("saturation c={clients}"))).collect();
    let present = world.present(TARGETS, options);
    let bytes = chat::asks(0, Manner::Slow, |_| TEXT)[0].delta.len();
    let mut rows = Vec::new();
    for clients in levels {
        let row = |target: &Target| Row {
            group: Group::Saturation,
            scenario: format!("saturation c={clients}"),
            target: *target,
            concurrency: clients,
            bytes,
            blocks: Vec::new(),
        };
        let mut own: Vec<Row> = present.iter().map(row).collect();
        for repetition in 0..options.repetitions.min(AT_MOST) {
            options.tell(&format!("saturation c={clients}"), repetition, 1);
            for row in &mut own {
                let process = world.process(row.target, &[])?.ok_or("no process")?;
                let session = row.target.remembers().then(|| format!("s-{clients}-{repetition}"));
                row.blocks.push(block(&process, clients, session, options).await?);
            }
        }
        rows.extend(own);
    }
    Ok(rows)
}

async fn block(
    process: &Process,
    clients: usize,
    session: Option<String>,
    options: &Options,
) -> Result<Block, BoxError> {
    let ask = chat::asks(0, Manner::Slow, |_| TEXT).remove(0).delta;
    let mut connections = JoinSet::new();
    let mut workers = JoinSet::new();
    let mut senders = Vec::new();
    for _ in 0..clients {
        senders.push(client::connect(process.address, &mut connections).await?);
    }
    let before = process.cpu();
    let start = Instant::now();
    let until = start + LASTS / options.smaller.min(4) as u32;
    for (number, sender) in senders.into_iter().enumerate() {
        let session = session.as_ref().map(|session| format!("{session}-{number}"));
        workers.spawn(work(sender, ask.clone(), session, until));
    }
    let (mut samples, mut refused) = (Vec::new(), 0);
    while let Some(worker) = workers.join_next().await {
        let (own, own_refused) = worker??;
        samples.extend(own);
        refused += own_refused;
    }
    let wall = start.elapsed();
    let cpu = process.cpu().zip(before).map(|(after, before)| after.saturating_sub(before));
    let mut block = Block::new(Measured { samples, gaps: Vec::new(), wall });
    block.cpu = block.each(cpu);
    block.at_rest = process.at_rest.map(mebibytes);
    block.memory = process.memory().map(mebibytes);
    block.refused = Some(refused as f64 / (refused + block.requests) as f64);
    Ok(block)
}

/// One client until the time is over: what it was answered, and how often it was refused.
async fn work(
    mut sender: Sender,
    ask: Bytes,
    session: Option<String>,
    until: Instant,
) -> Result<(Vec<Sample>, usize), BoxError> {
    let (mut samples, mut refused) = (Vec::new(), 0);
    for turn in 0.. {
        let session = session.as_ref().map(|session| HeaderValue::try_from(format!("{session}-{turn}")));
        sender.ready().await?;
        let start = Instant::now();
        if start >= until {
            break;
        }
        let (head, body) =
            client::send(&mut sender, PATH, session.transpose()?.as_ref(), ask.clone()).await?.into_parts();
        body.collect().await?;
        let whole = start.elapsed();
        match head.status {
            StatusCode::OK => samples.push(Sample { first: whole, whole }),
            StatusCode::SERVICE_UNAVAILABLE => {
                refused += 1;
                tokio::time::sleep(WAITS).await;
            }
            other => return Err(format!("answered {other}").into()),
        }
    }
    Ok((samples, refused))
}
