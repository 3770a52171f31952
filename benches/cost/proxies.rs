//! The whole program, and the bare proxy beside it: instructions and system calls of a request, commands of a turn.

use std::{env, net::SocketAddr};

use tempfile::TempDir;

use crate::{
    bare,
    conversation::{Conversation, Reply, Session},
    error::BoxError,
    figures::{Figures, Unit},
    options::Options,
    process::Program,
    servers::Redis,
    tools::{self, Counts},
};

/// What stands between the client and the upstream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Proxy {
    Bare,
    Ours(Store),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Store {
    InMemory,
    Sqlite,
    Redis,
}

/// What a proxy does between two runs of different lengths: what they have in common is not counted.
struct Scenario {
    name: &'static str,
    proxy: Proxy,
    session: Session,
    per: Per,
}

#[derive(Clone, Copy)]
enum Per {
    Request,
    /// An event of a stream; the streams of the two runs are of different lengths.
    Event,
}

const fn scenario(name: &'static str, proxy: Proxy, session: Session, per: Per) -> Scenario {
    Scenario { name, proxy, session, per }
}

const IN_MEMORY: Proxy = Proxy::Ours(Store::InMemory);
const SQLITE: Proxy = Proxy::Ours(Store::Sqlite);
const REDIS: Proxy = Proxy::Ours(Store::Redis);

const INSTRUCTIONS: [Scenario; 13] = [
    scenario("bare proxy: a request", Proxy::Bare, Session::None(0), Per::Request),
    scenario("bare proxy: a request with 200 turns", Proxy::Bare, Session::None(200), Per::Request),
    scenario("bare proxy: an event", Proxy::Bare, Session::None(0), Per::Event),
    scenario("no session: a request", IN_MEMORY, Session::None(0), Per::Request),
    scenario("no session: a request with 200 turns", IN_MEMORY, Session::None(200), Per::Request),
    scenario("no session: an event", IN_MEMORY, Session::None(0), Per::Event),
    scenario("in memory: a request, 0 turns", IN_MEMORY, Session::New, Per::Request),
    scenario("in memory: a request, 200 turns", IN_MEMORY, Session::Grown(200), Per::Request),
    scenario("in memory: an event", IN_MEMORY, Session::New, Per::Event),
    scenario("SQLite: a request, 0 turns", SQLITE, Session::New, Per::Request),
    scenario("SQLite: a request, 200 turns", SQLITE, Session::Grown(200), Per::Request),
    scenario("Redis: a request, 0 turns", REDIS, Session::New, Per::Request),
    scenario("Redis: a request, 200 turns", REDIS, Session::Grown(200), Per::Request),
];

const SYSTEM_CALLS: [Scenario; 9] = [
    scenario("bare proxy: a request", Proxy::Bare, Session::None(0), Per::Request),
    scenario("bare proxy: an event", Proxy::Bare, Session::None(0), Per::Event),
    scenario("no session: a request", IN_MEMORY, Session::None(0), Per::Request),
    scenario("no session: an event", IN_MEMORY, Session::None(0), Per::Event),
    scenario("in memory: a request, 0 turns", IN_MEMORY, Session::New, Per::Request),
    scenario("in memory: a request, 20 turns", IN_MEMORY, Session::Grown(20), Per::Request),
    scenario("in memory: an event", IN_MEMORY, Session::New, Per::Event),
    scenario("SQLite: a request, 20 turns", SQLITE, Session::Grown(20), Per::Request),
    scenario("Redis: a request, 20 turns", REDIS, Session::Grown(20), Per::Request),
];

const COMMANDS: [Scenario; 2] = [
    scenario("a turn, 0 turns before", REDIS, Session::New, Per::Request),
    scenario("a turn, 20 turns before", REDIS, Session::Grown(20), Per::Request),
];

/// # Errors
///
/// When a program or a tool does not run, or a reply is not what it should be.
pub(crate) fn measure(options: &Options, figures: &mut Figures) -> Result<(), BoxError> {
    let wanted = |scenarios: &'static [Scenario]| -> Vec<&Scenario> {
        scenarios.iter().filter(|scenario| options.wants(scenario.name)).collect()
    };
    let scenarios = wanted(&INSTRUCTIONS);
    let counted =
        tools::in_parallel(&scenarios, |scenario| scenario.count(options, tools::instructions_while))?;
    for (scenario, counts) in scenarios.iter().zip(counted) {
        figures.add(Unit::ProgramInstructions, scenario.name, sum(&counts));
    }
    for scenario in wanted(&SYSTEM_CALLS) {
        // Threads of a store and its server meet as they come.
        let tries = if matches!(scenario.proxy, SQLITE | REDIS) { 3 } else { 1 };
        let mut tries = (0..tries)
            .map(|_| scenario.count(options, tools::system_calls_while))
            .collect::<Result<Vec<_>, _>>()?;
        tries.sort_by(|one, other| sum(one).total_cmp(&sum(other)));
        let counts = tries.swap_remove(tries.len() / 2);
        let listed: Vec<_> = counts.iter().map(|(call, count)| format!("{count:.2} {call}")).collect();
        println!("{}: {}", scenario.name, listed.join(", "));
        figures.add(Unit::SystemCalls, scenario.name, sum(&counts));
    }
    for scenario in wanted(&COMMANDS) {
        for (command, count) in scenario.commands(options)? {
            figures.add(Unit::RedisCommands, &format!("{}: {command}", scenario.name), count);
        }
    }
    Ok(())
}

fn sum(counts: &Counts) -> f64 {
    counts.values().sum()
}

/// A tool that counts what a program does while something is done with it; the name is for its files.
type Tool =
    fn(&Program, &str, &mut dyn FnMut(SocketAddr) -> Result<(), BoxError>) -> Result<Counts, BoxError>;

impl Scenario {
    /// What one request or event adds.
    fn count(&self, options: &Options, tool: Tool) -> Result<Counts, BoxError> {
        let run = |length: &Length| {
            let conversation = Conversation::new(length.reply)?;
            let place = Place::new(self.proxy)?;
            let program = place.program(self.proxy, conversation.upstream())?;
            tool(&program, self.name, &mut |proxy| conversation.hold(proxy, self.session, length.requests))
        };
        self.difference(options, run)
    }

    /// What one turn asks of Redis.
    fn commands(&self, options: &Options) -> Result<Counts, BoxError> {
        let run = |length: &Length| {
            let conversation = Conversation::new(length.reply)?;
            let place = Place::new(self.proxy)?;
            let proxy = place.program(self.proxy, conversation.upstream())?.listen()?;
            conversation.hold(proxy.address, self.session, length.requests)?;
            let redis = place.redis.as_ref().ok_or("commands are of Redis")?;
            Ok(commands_of(&redis.cli(&["info", "commandstats"])))
        };
        self.difference(options, run)
    }

    fn difference(
        &self,
        options: &Options,
        run: impl Fn(&Length) -> Result<Counts, BoxError>,
    ) -> Result<Counts, BoxError> {
        let (short, long, more) = self.lengths(options.times);
        let less = run(&short)?;
        let counts = run(&long)?.into_iter().map(|(name, count)| {
            let before = less.get(&name).copied().unwrap_or_default();
            (name, (count - before) / more as f64)
        });
        Ok(counts.filter(|(_, count)| *count != 0.0).collect())
    }

    /// A short run, a long one, and how many more of what counts the long one has.
    fn lengths(&self, times: usize) -> (Length, Length, usize) {
        match (self.per, self.session) {
            (Per::Request, Session::Grown(turns)) => requests(5, (LONGEST - turns - 5).min(100)),
            (Per::Request, _) => requests(20, 100 * times),
            (Per::Event, _) => {
                let length = |events| Length { reply: Reply::Stream(events), requests: 5 };
                (length(20), length(20 + 100 * times), 5 * 100 * times)
            }
        }
    }
}

/// How many turns a session has at most: the window of 256 turns must not come into it.
const LONGEST: usize = 250;

/// One run of a proxy.
struct Length {
    reply: Reply,
    requests: usize,
}

fn requests(few: usize, more: usize) -> (Length, Length, usize) {
    let length = |requests| Length { reply: Reply::Json, requests };
    (length(few), length(few + more), more)
}

/// What a store needs; it ends with this value.
struct Place {
    directory: TempDir,
    redis: Option<Redis>,
}

impl Place {
    fn new(proxy: Proxy) -> Result<Self, BoxError> {
        let redis = matches!(proxy, REDIS).then(|| Redis::start_with(&["--appendonly", "yes"]));
        Ok(Self { directory: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?, redis })
    }

    fn program(&self, proxy: Proxy, upstream: SocketAddr) -> Result<Program, BoxError> {
        let store = match (proxy, &self.redis) {
            (Proxy::Bare, _) => {
                return Ok(Program::new(env::current_exe()?, [bare::ROLE, &upstream.to_string()]));
            }
            (SQLITE, _) => format!("sqlite:{}", self.directory.path().join("sessions.db").display()),
            (REDIS, Some(redis)) => redis.url(),
            _ => "memory".to_owned(),
        };
        let upstream = format!("http://{upstream}");
        let arguments = ["serve", "--listen", "127.0.0.1:0", "--store", &store, "--upstream", &upstream];
        Ok(Program::new(env!("CARGO_BIN_EXE_session-memory"), arguments))
    }
}

/// How often each command was called, also by scripts.
fn commands_of(statistics: &str) -> Counts {
    let lines = statistics.lines().filter_map(|line| line.strip_prefix("cmdstat_")?.split_once(":calls="));
    lines.filter_map(|(name, rest)| Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))).collect()
}
