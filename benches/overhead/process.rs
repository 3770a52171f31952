//! The processes that take part, and what the system knows of their CPU time and memory.

use std::{
    env, fs,
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{bare, child, common::cpu, error::BoxError, servers, upstream};

/// How long a process may take to get ready. LiteLLM takes a minute where others work beside it.
const PATIENCE: Duration = Duration::from_secs(300);

/// A running process; ended with its value.
pub(crate) struct Process {
    child: Child,
    /// Whether `child` only watches over the process that is meant.
    guarded: bool,
    pub(crate) address: SocketAddr,
    /// Its memory in KiB when it was ready, before the first request.
    pub(crate) at_rest: Option<u64>,
}

/// Starts a program and waits for our end of a pipe to close, which it does when this process ends, however it
/// ends. Then it ends the program.
const GUARD: &str = r#"
    signal=$1
    shift
    "$@" </dev/null &
    program=$!
    cat
    kill -$signal $program 2>/dev/null
    wait $program
"#;

impl Process {
    pub(crate) fn upstream() -> Result<Self, BoxError> {
        Self::start(Command::new(env::current_exe()?).arg(upstream::ROLE))
    }

    pub(crate) fn bare(upstream: SocketAddr) -> Result<Self, BoxError> {
        Self::start(Command::new(env::current_exe()?).arg(bare::ROLE).arg(upstream.to_string()))
    }

    /// The real program, with its defaults where `settings` say nothing else.
    pub(crate) fn proxy(
        upstream: SocketAddr,
        store: &str,
        directory: &Path,
        settings: &[String],
    ) -> Result<Self, BoxError> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_session-memory"));
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("SESSION_MEMORY_") {
                command.env_remove(name);
            }
        }
        command.current_dir(directory).args(["serve", "--listen", "127.0.0.1:0", "--store", store]);
        Self::start(command.args(settings).arg("--upstream").arg(format!("http://{upstream}")))
    }

    fn start(command: &mut Command) -> Result<Self, BoxError> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let address = child.stderr.take().ok_or("a child has no stderr").map(child::ready);
        match address.map(|address| address.recv_timeout(PATIENCE)) {
            Ok(Ok(address)) => Ok(Self { child, guarded: false, address, at_rest: None }.rested()),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                Err("a process did not get ready".into())
            }
        }
    }

    /// A program that is not ours: ready when it takes connections; its output goes into a file.
    pub(crate) fn foreign(
        program: &Command,
        signal: &str,
        address: SocketAddr,
        output: &Path,
    ) -> Result<Self, BoxError> {
        let said = fs::File::create(output)?;
        let mut shell = Command::new("sh");
        shell.args(["-c", GUARD, "guard", signal]).arg(program.get_program()).args(program.get_args());
        for (name, value) in program.get_envs() {
            value.map(|value| shell.env(name, value));
        }
        shell.stdin(Stdio::piped()).stdout(said.try_clone()?).stderr(said);
        let process = Self { child: shell.spawn()?, guarded: true, address, at_rest: None };
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            // The guard waits for us even when its program has ended, and has none at first.
            let ended = started.elapsed() > Duration::from_secs(5) && process.pids().is_empty();
            if ended || started.elapsed() > PATIENCE {
                let said = fs::read_to_string(output).unwrap_or_default();
                return Err(format!("{} did not get ready: {said}", program.get_program().display()).into());
            }
            servers::pause();
        }
        Ok(process.rested())
    }

    fn rested(mut self) -> Self {
        self.at_rest = self.memory();
        self
    }

    /// Its processes: most have one, nginx has three.
    fn pids(&self) -> Vec<u32> {
        let mut pids = if self.guarded { children(self.child.id()) } else { vec![self.child.id()] };
        let mut next = 0;
        while let Some(pid) = pids.get(next).copied() {
            pids.extend(children(pid));
            next += 1;
        }
        pids.retain(|pid| name(*pid).is_some_and(|name| !self.guarded || name != "cat"));
        pids
    }

    /// Its CPU time; `None` where the system is not Linux.
    pub(crate) fn cpu(&self) -> Option<Duration> {
        self.pids().into_iter().map(cpu::of).sum()
    }

    /// Its resident memory in KiB; `None` where the system is not Linux.
    pub(crate) fn memory(&self) -> Option<u64> {
        self.pids().into_iter().map(resident).sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.guarded {
            drop(self.child.stdin.take());
        } else {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

fn name(pid: u32) -> Option<String> {
    Some(fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end().to_owned())
}

fn resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?.parse().ok()
}
