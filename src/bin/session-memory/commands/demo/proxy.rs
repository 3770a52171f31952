//! The proxy in a process of its own, so that it can be killed.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use crate::error::BoxError;

/// A start may take 20 seconds.
const START: Duration = Duration::from_secs(20);

/// A running proxy; killed on drop.
pub(super) struct Proxy {
    child: Child,
    pub(super) url: String,
}

impl Proxy {
    /// Starts this program once more, as `serve`, with the default settings.
    pub(super) fn start(upstream: &str, database: &Path) -> Result<Self, BoxError> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["serve", "--listen", "127.0.0.1:0", "--upstream", upstream, "--store"]);
        command.arg(format!("sqlite:{}", database.display()));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SESSION_MEMORY_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let mut proxy = Self { child, url: String::new() };
        proxy.url = proxy.ready()?;
        Ok(proxy)
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, which the process cannot handle.
    pub(super) fn kill(&mut self) -> Result<(), BoxError> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// The end of the demonstration.
    pub(super) fn stop(mut self) -> Result<(), BoxError> {
        self.kill()
    }

    /// The address in the ready line.
    fn ready(&mut self) -> Result<String, BoxError> {
        let stderr = self.child.stderr.take().ok_or("the proxy has no stderr")?;
        let (sender, lines) = mpsc::sync_channel::<String>(64);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                // The pipe is read to its end, so that the proxy never waits for a reader.
                let _ = sender.try_send(line);
            }
        });
        let mut said = Vec::new();
        while let Ok(line) = lines.recv_timeout(START) {
            if let Some((_, rest)) = line.split_once("listening on ") {
                return Ok(rest.split(' ').next().unwrap_or_default().to_owned());
            }
            said.push(line);
        }
        Err(format!("the proxy did not start: {}", said.join("; ")).into())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
