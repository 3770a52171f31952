//! Targets: the servers that are compared.

use std::{net::SocketAddr, process::Command, time::Duration};

use tempfile::TempDir;

use crate::{
    common::cpu,
    error::BoxError,
    nginx,
    options::Options,
    peers::Peers,
    process::Process,
    servers::{Postgres, Redis},
};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Target {
    /// The upstream itself.
    Direct,
    /// The least that a proxy does.
    Bare,
    Nginx,
    /// The program, without a session: the client sends the whole history.
    Pass,
    /// The program with its in-memory store, and the others.
    Memory,
    Sqlite,
    Redis,
    Postgres,
    /// Redis without the cache of sessions.
    Uncached,
    /// In memory, with a limit of requests at once.
    Limited,
    /// Not a target: one request of a turn's size to Redis, and its answer.
    Wire,
    LiteLlm,
    LangChain,
    Agents,
}

impl Target {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "no proxy",
            Self::Bare => "bare hyper proxy",
            Self::Nginx => "nginx",
            Self::Pass => "ours, no session",
            Self::Memory => "ours, in memory",
            Self::Sqlite => "ours, SQLite",
            Self::Redis => "ours, Redis",
            Self::Postgres => "ours, Postgres",
            Self::Uncached => "ours, Redis, no cache",
            Self::Limited => "ours, in memory, limited",
            Self::Wire => "one Redis round trip",
            Self::LiteLlm => "LiteLLM proxy, no memory",
            Self::LangChain => "LangChain + Redis",
            Self::Agents => "Agents SDK + Redis",
        }
    }

    /// Whether the client sends it a session and its new message only.
    pub(crate) fn remembers(self) -> bool {
        self.is_ours() && self != Self::Pass || matches!(self, Self::LangChain | Self::Agents)
    }

    pub(crate) fn is_peer(self) -> bool {
        matches!(self, Self::LiteLlm | Self::LangChain | Self::Agents)
    }

    fn is_ours(self) -> bool {
        use Target::{Limited, Memory, Pass, Postgres, Redis, Sqlite, Uncached};
        matches!(self, Pass | Memory | Sqlite | Redis | Postgres | Uncached | Limited)
    }
}

/// What is there for all of a run.
pub(crate) struct World {
    pub(crate) upstream: Process,
    directory: TempDir,
    redis: Redis,
    postgres: Option<Postgres>,
    peers: Option<Peers>,
}

impl World {
    /// # Errors
    ///
    /// When something does not start.
    pub(crate) fn start(options: &Options) -> Result<Self, BoxError> {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let upstream = Process::upstream()?;
        let redis = Redis::start_with(&["--appendonly", "yes"]);
        let postgres = options.has("postgres").then(Postgres::start);
        let peers = match options.peers {
            true => Some(Peers::start(upstream.address, &redis.url(), directory.path())?),
            false => None,
        };
        Ok(Self { upstream, directory, redis, postgres, peers })
    }

    /// Those of them that take part in this run.
    pub(crate) fn present(&self, targets: &[Target], options: &Options) -> Vec<Target> {
        let takes_part = |target: &Target| match target {
            Target::Nginx => options.has("nginx"),
            Target::Postgres => options.has("postgres"),
            Target::Limited => limit_exists(),
            peer if peer.is_peer() => self.peers.is_some(),
            _ => true,
        };
        targets.iter().copied().filter(takes_part).collect()
    }

    /// New processes for these targets, with new files. Redis, Postgres and the peers are there already.
    pub(crate) fn targets(
        &self,
        targets: &[Target],
        settings: &[String],
    ) -> Result<Vec<(Target, Option<Process>)>, BoxError> {
        targets.iter().map(|target| Ok((*target, self.process(*target, settings)?))).collect()
    }

    pub(crate) fn process(&self, target: Target, settings: &[String]) -> Result<Option<Process>, BoxError> {
        let upstream = self.upstream.address;
        let directory = self.directory.path();
        let ours = |store: &str, more: &[&str]| {
            // A busy machine slows a run down; it does not end it.
            let patient = ["--load-timeout", "30s", "--commit-wait", "30s"];
            let more = patient.iter().chain(more).map(|setting| (*setting).to_owned());
            let settings: Vec<String> = settings.iter().cloned().chain(more).collect();
            Process::proxy(upstream, store, directory, &settings)
        };
        let process = match target {
            Target::Bare => Process::bare(upstream)?,
            Target::Nginx => nginx::start(upstream, directory)?,
            Target::Pass | Target::Memory => ours("memory", &[])?,
            Target::Limited => ours("memory", &["--max-requests", "64"])?,
            Target::Sqlite => ours(&format!("sqlite:{}.db", fresh_number()), &[])?,
            Target::Redis => ours(&self.redis.url(), &[])?,
            Target::Uncached => ours(&self.redis.url(), &["--cache-bytes", "none"])?,
            Target::Postgres => ours(self.postgres.as_ref().ok_or("no Postgres")?.url().as_ref(), &[])?,
            Target::Direct | Target::Wire | Target::LiteLlm | Target::LangChain | Target::Agents => {
                return Ok(None);
            }
        };
        Ok(Some(process))
    }

    /// The process of a target that is there for all of a run.
    pub(crate) fn shared(&self, target: Target) -> Option<&Process> {
        match target {
            Target::Direct => Some(&self.upstream),
            Target::LiteLlm => Some(&self.peers.as_ref()?.litellm),
            Target::LangChain => Some(&self.peers.as_ref()?.langchain),
            Target::Agents => Some(&self.peers.as_ref()?.agents),
            _ => None,
        }
    }

    /// CPU time of the server that keeps a target's sessions.
    pub(crate) fn store_cpu(&self, target: Target) -> Option<Duration> {
        match target {
            Target::Redis | Target::Uncached | Target::LangChain | Target::Agents => {
                cpu::of(self.redis.pid())
            }
            Target::Postgres => {
                self.postgres.as_ref()?.pids().iter().map(|pid| cpu::of(pid.parse().ok()?)).sum()
            }
            _ => None,
        }
    }

    pub(crate) fn redis(&self) -> SocketAddr {
        self.redis.address()
    }
}

fn fresh_number() -> usize {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

/// Whether this build has a limit of requests at once.
fn limit_exists() -> bool {
    let settings = Command::new(env!("CARGO_BIN_EXE_session-memory")).arg("settings").output();
    settings.is_ok_and(|settings| String::from_utf8_lossy(&settings.stdout).contains("`--max-requests`"))
}
