//! The `session-memory` program as a process.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Condvar, Mutex, mpsc},
    thread::JoinHandle,
    time::Duration,
};

/// A hung process fails a test after so long; nothing is asserted about how long anything takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program, without whatever settings are in this environment.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_session-memory"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SESSION_MEMORY_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the program to its end.
pub fn run(args: &[&str]) -> Output {
    command().args(args).output().unwrap()
}

/// What a program printed to stderr.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What a program printed to stdout.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a process has said so far, line by line.
#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    more: Condvar,
}

/// A running `session-memory serve`; killed with its value.
pub struct Proxy {
    child: Child,
    pub address: SocketAddr,
    pub admin: Option<SocketAddr>,
    log: Arc<Log>,
    /// Ends when the process has closed stderr.
    said_all: mpsc::Receiver<SocketAddr>,
    reader: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts it on a free port, with a store in memory unless the arguments name one.
    pub fn start(upstream: &str, args: &[&str]) -> Self {
        Self::start_in(Path::new("."), upstream, args)
    }

    /// The same, in a directory.
    pub fn start_in(directory: &Path, upstream: &str, args: &[&str]) -> Self {
        let mut command = command();
        command.current_dir(directory).args(["serve", "--listen", "127.0.0.1:0", "--upstream", upstream]);
        if !args.contains(&"--store") {
            command.args(["--store", "memory"]);
        }
        let mut child = command.args(args).stdout(Stdio::null()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Log::default());
        let (ready, said_all) = mpsc::channel();
        let kept = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let ready_at = address_in(&line, "session-memory: listening on http://");
                kept.lines.lock().unwrap().push(line);
                kept.more.notify_all();
                if let Some(address) = ready_at {
                    ready.send(address).unwrap();
                }
            }
        });
        let Ok(address) = said_all.recv_timeout(PATIENCE) else {
            let _ = child.kill();
            panic!("the proxy did not get ready: {:?}", log.lines.lock().unwrap());
        };
        let admin = log
            .lines
            .lock()
            .unwrap()
            .iter()
            .find_map(|line| address_in(line, "session-memory: admin on http://"));
        Self { child, address, admin, log, said_all, reader: Some(reader) }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name: `TERM`, `INT`, `KILL`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(sent.unwrap().success(), "the signal {name} was not sent");
    }

    /// Waits for a line that holds this text.
    pub fn wait_for(&self, text: &str) {
        self.wait_for_more(text, 0);
    }

    /// Waits for one after so many lines that hold this text.
    pub fn wait_for_more(&self, text: &str, before: usize) {
        let lines = self.log.lines.lock().unwrap();
        let unsaid =
            |lines: &mut Vec<String>| lines.iter().filter(|line| line.contains(text)).count() <= before;
        let (lines, waited) = self.log.more.wait_timeout_while(lines, PATIENCE, unsaid).unwrap();
        assert!(!waited.timed_out(), "never said {text:?}: {lines:?}");
    }

    /// Waits for the process and answers its exit code and all it said.
    pub fn wait(mut self) -> (Option<i32>, String) {
        let ended = self.said_all.recv_timeout(PATIENCE);
        assert_eq!(ended, Err(mpsc::RecvTimeoutError::Disconnected), "it does not end: {}", self.log());
        let status = self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        (status.code(), self.log())
    }

    fn log(&self) -> String {
        self.log.lines.lock().unwrap().join("\n")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn address_in(line: &str, before: &str) -> Option<SocketAddr> {
    line.strip_prefix(before)?.split(' ').next()?.parse().ok()
}
