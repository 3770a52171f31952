//! The processes that take part, and what the system knows of their CPU time.

use std::{
    env,
    future::Future,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStderr, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use tokio::io::AsyncReadExt;

use crate::{BoxError, bare, common::cpu, upstream};

/// A running process; killed with its value.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Process {
    pub(crate) fn upstream() -> Result<Self, BoxError> {
        Self::start(Command::new(env::current_exe()?).arg(upstream::ROLE))
    }

    pub(crate) fn bare(upstream: SocketAddr) -> Result<Self, BoxError> {
        Self::start(Command::new(env::current_exe()?).arg(bare::ROLE).arg(upstream.to_string()))
    }

    /// The real program, with its defaults.
    pub(crate) fn proxy(upstream: SocketAddr, store: &str, directory: &Path) -> Result<Self, BoxError> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_session-memory"));
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("SESSION_MEMORY_") {
                command.env_remove(name);
            }
        }
        command.current_dir(directory).args(["serve", "--listen", "127.0.0.1:0", "--store", store]);
        Self::start(command.arg("--upstream").arg(format!("http://{upstream}")))
    }

    fn start(command: &mut Command) -> Result<Self, BoxError> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let address = child.stderr.take().ok_or("a child has no stderr").map(ready);
        match address.map(|address| address.recv_timeout(Duration::from_secs(20))) {
            Ok(Ok(address)) => Ok(Self { child, address }),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                Err("a process did not get ready".into())
            }
        }
    }

    /// Its CPU time; `None` where the system is not Linux.
    pub(crate) fn cpu(&self) -> Option<Duration> {
        cpu::of(self.child.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const READY: &str = "listening on http://";

/// Tells the parent where this child listens.
pub(crate) fn say_ready(address: SocketAddr) {
    eprintln!("{READY}{address}");
}

/// Runs a child's work until its parent is gone, which ends its standard input.
pub(crate) async fn until_orphaned(work: impl Future<Output = Result<(), BoxError>>) -> Result<(), BoxError> {
    tokio::select! {
        ended = work => ended,
        _ = async { tokio::io::stdin().read_u8().await } => Ok(()),
    }
}

/// Reads what a child says to its end, passes on what is not expected, and finds where it listens.
fn ready(stderr: ChildStderr) -> mpsc::Receiver<SocketAddr> {
    let (sender, receiver) = mpsc::channel();
    let mut lines = BufReader::new(stderr);
    thread::spawn(move || {
        let mut line = String::new();
        while lines.read_line(&mut line).is_ok_and(|read| read > 0) {
            let address = line.split_once(READY).and_then(|(_, rest)| rest.split_whitespace().next());
            match address.and_then(|address| address.parse().ok()) {
                Some(address) => drop(sender.send(address)),
                None if line.contains("FORGOTTEN") => {}
                None => eprint!("{line}"),
            }
            line.clear();
        }
        let _ = lines.read_to_end(&mut Vec::new());
    });
    receiver
}
