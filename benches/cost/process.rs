//! Programs that are started here, under a tool or by themselves.

use std::{
    ffi::OsString,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use crate::{child, error::BoxError, servers};

/// How long a process may take to do something.
const PATIENCE: Duration = Duration::from_secs(60);

/// Copies by vector instructions, 32 bytes each. By default glibc copies from 8 KiB on by `rep movsb`, and valgrind
/// counts each of its bytes as an instruction: a table that moves when it grows, which depends on where the heap has
/// room, would outweigh all else.
const COPIES: (&str, &str) = ("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-ERMS");

/// A program and its arguments.
#[derive(Clone)]
pub(crate) struct Program(Vec<OsString>);

impl Program {
    pub(crate) fn new(
        program: impl Into<OsString>,
        arguments: impl IntoIterator<Item = impl Into<OsString>>,
    ) -> Self {
        Self(std::iter::once(program.into()).chain(arguments.into_iter().map(Into::into)).collect())
    }

    /// The same program, started by another one.
    pub(crate) fn under(&self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self(arguments.into_iter().map(Into::into).chain(self.0.iter().cloned()).collect())
    }

    /// With one worker thread, and nothing of this process's environment: its figures must not depend on where it runs.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.0[0]);
        command.args(&self.0[1..]).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs([("TOKIO_WORKER_THREADS", "1"), ("SESSION_MEMORY_WORKER_THREADS", "1"), COPIES]);
        command.current_dir(env!("CARGO_TARGET_TMPDIR")).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Runs it to its end.
    ///
    /// # Errors
    ///
    /// When it does not start, or fails.
    pub(crate) fn run(&self) -> Result<(), BoxError> {
        let output =
            self.command().stderr(Stdio::piped()).output().map_err(|error| self.unstarted(&error))?;
        match output.status.success() {
            true => Ok(()),
            false => Err(format!("{:?}: {}", self.0, String::from_utf8_lossy(&output.stderr)).into()),
        }
    }

    /// Starts a proxy and waits until it listens.
    ///
    /// # Errors
    ///
    /// When it does not start, or does not listen.
    pub(crate) fn listen(&self) -> Result<Listening, BoxError> {
        let mut child = self
            .command()
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| self.unstarted(&error))?;
        let address = child.stderr.take().map(child::ready);
        let mut listening = Listening { child, address: SocketAddr::from(([0, 0, 0, 0], 0)) };
        listening.address = address
            .and_then(|address| address.recv_timeout(PATIENCE).ok())
            .ok_or_else(|| format!("{:?} does not listen", self.0))?;
        Ok(listening)
    }

    fn unstarted(&self, error: &std::io::Error) -> String {
        format!("{:?}: {error}", self.0[0])
    }
}

/// A running proxy; killed with its value.
pub(crate) struct Listening {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Listening {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as an operator would, and waits until it has ended; `pid` is the proxy's, not that of a tool.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub(crate) fn end(mut self, pid: u32) -> Result<ExitStatus, BoxError> {
        Command::new("kill").args(["-TERM", &pid.to_string()]).status()?;
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > until {
                return Err("a proxy does not end".into());
            }
            servers::pause();
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads a file that another process writes: it may not be there yet.
pub(crate) fn read_when_written(path: &Path) -> Result<String, BoxError> {
    let until = Instant::now() + PATIENCE;
    loop {
        match std::fs::read_to_string(path) {
            Ok(text) if text.ends_with('\n') => return Ok(text),
            _ if Instant::now() > until => return Err(format!("{} is not written", path.display()).into()),
            _ => servers::pause(),
        }
    }
}
