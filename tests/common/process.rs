//! The `session-memory` program as a process.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread::JoinHandle,
    time::Duration,
};

/// Time after which a hung process fails a test. No test asserts how long anything takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Beginning of the line that contains the address of the listener.
pub const READY: &str = "session-memory: listening on http://";
/// Beginning of the line that contains the address of the admin listener.
pub const ADMIN: &str = "session-memory: admin on http://";

/// The program, without the settings of this environment.
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

/// Text of stderr.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Text of stdout.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A process whose stderr is kept. Dropping it kills the process.
pub struct Process {
    child: Child,
    log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
}

/// Lines of stderr, as a thread reads them.
#[derive(Default)]
struct Log {
    said: Mutex<Said>,
    more: Condvar,
}

#[derive(Default)]
struct Said {
    lines: Vec<String>,
    /// Whether the process has closed stderr.
    all: bool,
}

impl Process {
    pub fn spawn(command: &mut Command) -> Self {
        let mut child =
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Log::default());
        let kept = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                kept.said.lock().unwrap().lines.push(line);
                kept.more.notify_all();
            }
            kept.said.lock().unwrap().all = true;
            kept.more.notify_all();
        });
        Self { child, log, reader: Some(reader) }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name: `TERM`, `INT`, `KILL`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status();
        assert!(sent.unwrap().success(), "the signal {name} was not sent");
    }

    /// Text of stderr until now.
    pub fn log(&self) -> String {
        self.log.said.lock().unwrap().lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// First line with this beginning.
    pub fn line(&self, start: &str) -> Option<String> {
        self.log.said.lock().unwrap().lines.iter().find(|line| line.starts_with(start)).cloned()
    }

    /// Address that follows this beginning in its first line.
    pub fn address(&self, start: &str) -> Option<SocketAddr> {
        self.line(start)?.strip_prefix(start)?.split(' ').next()?.parse().ok()
    }

    /// Waits until more lines than this hold the text.
    fn wait_for_more(&self, text: &str, before: usize) {
        let missing =
            |said: &mut Said| said.lines.iter().filter(|line| line.contains(text)).count() <= before;
        let waiting = |said: &mut Said| !said.all && missing(said);
        let said = self.log.said.lock().unwrap();
        let (mut said, _) = self.log.more.wait_timeout_while(said, PATIENCE, waiting).unwrap();
        assert!(!missing(&mut said), "never said {text:?}: {:?}", said.lines);
    }

    /// Exit status, if the process has ended. The log is complete then.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().unwrap()?;
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        Some(status)
    }

    /// Waits until it ends by itself.
    fn wait(&mut self) -> ExitStatus {
        let said = self.log.said.lock().unwrap();
        let (said, waited) = self.log.more.wait_timeout_while(said, PATIENCE, |said| !said.all).unwrap();
        assert!(!waited.timed_out(), "it does not end: {:?}", said.lines);
        drop(said);
        self.child.wait().unwrap()
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A running `session-memory serve`, for tests without a runtime. Dropping it kills the process.
pub struct Proxy {
    process: Process,
    pub address: SocketAddr,
    pub admin: Option<SocketAddr>,
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
        let process = Process::spawn(command.args(args));
        process.wait_for_more(READY, 0);
        let address = process.address(READY).expect("the line names the address");
        let admin = process.address(ADMIN);
        Self { process, address, admin }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Sends a signal by its name: `TERM`, `INT`, `KILL`.
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Waits for a line that holds this text.
    pub fn wait_for(&self, text: &str) {
        self.wait_for_more(text, 0);
    }

    /// Waits for one after this number of lines that hold the text.
    pub fn wait_for_more(&self, text: &str, before: usize) {
        self.process.wait_for_more(text, before);
    }

    /// Waits for the process and answers its exit code and all it said.
    pub fn wait(mut self) -> (Option<i32>, String) {
        let status = self.process.wait();
        (status.code(), self.process.log())
    }
}
