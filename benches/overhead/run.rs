//! Order in which the targets are measured, and what is recorded of each.

use std::{ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use http::HeaderValue;
use http_body_util::BodyExt;
use tokio::task::JoinSet;

use crate::{
    chat::{self, Ask},
    client::{self, Expected, Load},
    common::machine::Machine,
    error::BoxError,
    options::Options,
    process::Process,
    report,
    rows::{Block, Row, Rows, mebibytes},
    saturation,
    scenarios::{self, Scenario},
    streams,
    targets::{Target, World},
    wire,
};

/// Connections over which conversations are brought to their depth.
const SEEDERS: usize = 16;

/// Measures everything that is asked for, and reports it.
///
/// # Errors
///
/// When a process does not start, a request fails, or history did not arrive.
pub(crate) fn run(options: &Options) -> Result<(), BoxError> {
    let machine = Machine::look();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut rows = Rows::default();
    let ended = runtime.block_on(measure_all(&mut rows, options));
    // What there is when a run breaks off tells more than nothing.
    report::publish(&rows, &machine, options)?;
    ended
}

async fn measure_all(rows: &mut Rows, options: &Options) -> Result<(), BoxError> {
    let world = World::start(options)?;
    for scenario in scenarios::all() {
        if options.wants(&scenario.name()) {
            rows.0.extend(measure(&scenario, &world, options).await?);
        }
    }
    rows.0.extend(streams::measure(&world, options).await?);
    rows.0.extend(saturation::measure(&world, options).await?);
    Ok(())
}

/// The repetitions of a scenario, interleaved: each asks every target, beginning with another one.
async fn measure(scenario: &Scenario, world: &World, options: &Options) -> Result<Vec<Row>, BoxError> {
    let asks = Arc::new(scenario.asks());
    let mut present = world.present(scenario.targets, options);
    present.retain(|target| scenario.load(*target, 1).is_some());
    let targets = world.targets(&present, &scenario.settings())?;
    let mut rows: Vec<Row> = present.iter().map(|target| row(scenario, *target, &asks)).collect();
    for repetition in 0..options.repetitions * scenario.rounds {
        options.tell(&scenario.name(), repetition, scenario.rounds);
        for place in 0..targets.len() {
            let place = (repetition + place) % targets.len();
            let (target, own) = &targets[place];
            let turn = Turn { scenario, world, target: *target, asks: &asks, repetition, options };
            let block = match (own.as_ref().or(world.shared(*target)), target) {
                (Some(process), _) => turn.block(process).await,
                (None, _) => wire::measure(world.redis()).await,
            };
            rows[place].blocks.push(block.map_err(|error| format!("{}: {error}", target.name()))?);
        }
    }
    Ok(rows)
}

fn row(scenario: &Scenario, target: Target, asks: &[Ask]) -> Row {
    Row {
        group: scenario.group,
        scenario: scenario.name(),
        target,
        concurrency: scenario.concurrency,
        bytes: scenario.bytes(asks),
        blocks: Vec::new(),
    }
}

/// One target's turn in a repetition.
struct Turn<'a> {
    scenario: &'a Scenario,
    world: &'a World,
    target: Target,
    asks: &'a Arc<Vec<Ask>>,
    repetition: usize,
    options: &'a Options,
}

impl Turn<'_> {
    /// Warms it up, brings its conversations to their depth, and measures.
    async fn block(&self, process: &Process) -> Result<Block, BoxError> {
        let Self { scenario, world, target, options, .. } = *self;
        let count = scenario.load(target, options.smaller).ok_or("it is not asked here")?;
        let conversations = count.conversations;
        let depths = scenario.depths(target, self.repetition, count);
        let warm_up = if target.remembers() { 0..1 } else { depths.clone() };
        let few = if target.is_peer() { scenario.concurrency.max(4) } else { (conversations / 8).max(1) };
        self.load(process, scenario.concurrency, few, warm_up, &format!("warm-up-{}", self.repetition))
            .run()
            .await?;
        if target.remembers() && scenario.turns > 0 && self.repetition.is_multiple_of(scenario.lasts(target))
        {
            match target.is_peer() {
                true => self.seed_peer(process, conversations).await?,
                false => {
                    let all = 0..scenario.turns;
                    drop(self.load(process, SEEDERS, conversations, all, "measured").run().await?);
                }
            }
        }
        // Long enough for what the seeding left behind, such as the work of a connection that ended.
        tokio::time::sleep(Duration::from_millis(50)).await;

        let seen = self.seen().await?;
        let before = (process.cpu(), world.store_cpu(target));
        let load = self.load(process, scenario.concurrency, conversations, depths.clone(), "measured");
        let mut block = Block::new(load.run().await?);
        let after = (process.cpu(), world.store_cpu(target));
        self.check(seen, self.seen().await?, depths, conversations)?;
        let used = |before: Option<Duration>, after: Option<Duration>| Some(after?.saturating_sub(before?));
        if target != Target::Direct {
            block.cpu = block.each(used(before.0, after.0));
            block.store_cpu = block.each(used(before.1, after.1));
            block.at_rest = process.at_rest.map(mebibytes);
            block.memory = process.memory().map(mebibytes);
        }
        Ok(block)
    }

    fn load(
        &self,
        process: &Process,
        concurrency: usize,
        conversations: usize,
        depths: Range<usize>,
        session: &str,
    ) -> Load {
        Load {
            address: process.address,
            concurrency,
            conversations,
            depths,
            asks: Arc::clone(self.asks),
            session: self.target.remembers().then(|| self.session(session)),
            expected: Expected::of(self.scenario.manner, self.target.is_peer()),
        }
    }

    /// What the ids of sessions begin with.
    fn session(&self, what: &str) -> String {
        let generation = self.repetition / self.scenario.lasts(self.target);
        format!("{}-{generation}-{what}", self.scenario.name().replace(' ', "-"))
    }

    /// Puts the turns into a peer's own memory at once: each by itself would take hours.
    async fn seed_peer(&self, process: &Process, conversations: usize) -> Result<(), BoxError> {
        let turns = chat::seed(self.scenario.turns);
        let mut tasks = JoinSet::new();
        let mut sender = client::connect(process.address, &mut tasks).await?;
        for conversation in 0..conversations {
            let session = HeaderValue::try_from(format!("{}-{conversation}", self.session("measured")))?;
            sender.ready().await?;
            let reply = client::send(&mut sender, "/seed", Some(&session), turns.clone()).await?;
            if !reply.status().is_success() {
                return Err(format!("a seed was answered {}", reply.status()).into());
            }
            reply.into_body().collect().await?;
        }
        Ok(())
    }

    /// How many requests and messages the upstream was sent so far.
    async fn seen(&self) -> Result<[usize; 2], BoxError> {
        let mut tasks = JoinSet::new();
        let mut sender = client::connect(self.world.upstream.address, &mut tasks).await?;
        let reply = client::send(&mut sender, chat::SEEN, None, Bytes::new()).await?;
        let body = reply.into_body().collect().await?.to_bytes();
        let mut counts = str::from_utf8(&body)?.split(' ').map(str::parse);
        let mut next = || Ok::<_, BoxError>(counts.next().ok_or("the upstream did not count")??);
        Ok([next()?, next()?])
    }

    /// Every message of every history arrived, once.
    fn check(
        &self,
        before: [usize; 2],
        after: [usize; 2],
        depths: Range<usize>,
        conversations: usize,
    ) -> Result<(), BoxError> {
        let asked = &self.asks[depths];
        let messages: usize = asked.iter().map(|ask| ask.messages).sum();
        let due = [asked.len() * conversations, messages * conversations];
        let seen = [after[0] - before[0], after[1] - before[1]];
        match seen == due {
            true => Ok(()),
            false => Err(format!("upstream saw {seen:?} requests and messages, not {due:?}").into()),
        }
    }
}
