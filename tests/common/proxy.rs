//! The real binary as a child process.

use std::{
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::Arc,
    time::Duration,
};

use tempfile::TempDir;
use tokio::sync::OnceCell;
use tower_session_memory::store::Scope;

use super::{
    client::{Answer, Exchange, Post},
    process::{self, Process},
    store::{self, AnyStore, NAMESPACE, Stored},
    wait::within,
};

/// How long a load and the end of a reply wait for the store: that the machine is busy is no fault of the store's.
const PATIENCE: &str = "30s";

/// Between two looks at a process.
const PAUSE: Duration = Duration::from_millis(5);

/// How the binary is to be started; starting it again uses the same directory and store.
#[derive(Clone)]
pub struct Launch {
    upstream: String,
    store: Option<String>,
    namespace: String,
    keys: Option<&'static str>,
    /// The store as this process opened it.
    opened: Arc<OnceCell<AnyStore>>,
    config: Option<String>,
    args: Vec<OsString>,
    envs: Vec<(String, String)>,
    /// Whether it waits for its store as long as a busy machine may need.
    patient: bool,
    dir: Arc<TempDir>,
}

/// A running proxy. Dropping it kills the process.
pub struct Proxy {
    launch: Launch,
    addr: SocketAddr,
    ready: String,
    process: Process,
}

/// What a process that ended left behind.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub log: String,
}

impl Launch {
    /// In front of this upstream, with a SQLite store in a directory of its own.
    pub fn new(upstream: &str) -> Self {
        Self {
            upstream: upstream.to_owned(),
            store: None,
            namespace: NAMESPACE.to_owned(),
            keys: None,
            opened: Arc::default(),
            config: None,
            args: Vec::new(),
            envs: Vec::new(),
            patient: true,
            dir: Arc::new(TempDir::new().unwrap()),
        }
    }

    /// Another `--store` than the SQLite file of [`store_path`](Self::store_path).
    pub fn store(mut self, store: &str) -> Self {
        self.store = Some(store.to_owned());
        self
    }

    /// A namespace of its own, for a store that is shared with others.
    pub fn namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.namespace);
        self
    }

    /// Turns are encrypted with the first of these keys, and compressed.
    pub fn sealed(mut self, keys: &'static str) -> Self {
        std::fs::write(self.dir.path().join("keys"), keys).unwrap();
        self.keys = Some(keys);
        self.arg("--encryption-key-file").arg("keys").arg("--compress").arg("true")
    }

    /// A configuration file with this text.
    pub fn config(mut self, toml: &str) -> Self {
        self.config = Some(toml.to_owned());
        self
    }

    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.envs.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Leaves the limits of loads and commits at their defaults, for what must hold although they run out. Without this
    /// they are [`PATIENCE`], which goes before the configuration file; a test of others gives them as arguments.
    pub fn with_default_limits(self) -> Self {
        Self { patient: false, ..self }
    }

    /// Another process on this one's directory and store, without its environment.
    pub fn sibling(&self) -> Self {
        Self { envs: Vec::new(), ..self.clone() }
    }

    /// The directory of the process.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The SQLite file.
    pub fn store_path(&self) -> PathBuf {
        self.dir.path().join("sessions.db")
    }

    fn store_url(&self) -> String {
        self.store.clone().unwrap_or_else(|| format!("sqlite:{}", self.store_path().display()))
    }

    /// Its store, opened by this process.
    pub async fn opened(&self) -> &AnyStore {
        self.opened.get_or_init(|| async { store::open_url(&self.store_url(), self.keys).await }).await
    }

    /// What its store holds of a session, in commit order.
    pub async fn stored(&self, scope: fn(&str) -> Scope, session: &str) -> Vec<Stored> {
        store::load_of(&**self.opened().await, &scope(&self.namespace), session).await
    }

    /// Starts it and waits for its ready line.
    pub async fn start(self) -> Proxy {
        self.try_start().await.unwrap_or_else(|ended| {
            panic!("the proxy ended with {} before it was ready:\n{}", ended.status, ended.log)
        })
    }

    /// The same; an error when it ends before.
    pub async fn try_start(self) -> Result<Proxy, Ended> {
        let mut process = self.spawn();
        let ready = within("the ready line", async {
            loop {
                if let Some(line) = process.line(process::READY) {
                    return Ok(line);
                }
                if let Some(status) = process.try_wait() {
                    return Err(status);
                }
                tokio::time::sleep(PAUSE).await;
            }
        })
        .await;
        match ready {
            Ok(ready) => {
                let addr = process.address(process::READY).expect("the ready line names the address");
                Ok(Proxy { launch: self, addr, ready, process })
            }
            Err(status) => Err(Ended { status, log: process.log() }),
        }
    }

    /// Starts it and waits until it ends by itself.
    pub async fn run_to_end(self) -> Ended {
        ended(self.spawn()).await
    }

    fn spawn(&self) -> Process {
        let mut command = process::command();
        command.arg("serve").args(["--upstream", &self.upstream, "--store", &self.store_url()]);
        command.args(["--namespace", &self.namespace]);
        if !self.args.iter().any(|arg| arg == "--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        if let Some(toml) = &self.config {
            let path = self.dir.path().join("config.toml");
            std::fs::write(&path, toml).unwrap();
            command.arg("--config").arg(path);
        }
        if self.patient {
            let limits = ["SESSION_MEMORY_LOAD_TIMEOUT", "SESSION_MEMORY_COMMIT_WAIT"];
            command.envs(limits.map(|limit| (limit, PATIENCE)));
        }
        command.args(&self.args).envs(self.envs.iter().map(|(name, value)| (name, value)));
        Process::spawn(command.current_dir(self.dir.path()))
    }
}

impl Proxy {
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The line that announced that it was ready.
    pub fn ready(&self) -> &str {
        &self.ready
    }

    /// What it wrote to stderr so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    pub fn launch(&self) -> &Launch {
        &self.launch
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// `kill -9`, and waits until it is gone.
    pub async fn kill(mut self) -> Launch {
        self.process.kill();
        self.launch
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.process.signal("TERM");
    }

    /// Waits until it ends by itself.
    pub async fn ended(self) -> Ended {
        ended(self.process).await
    }

    /// SIGTERM, and starts it again.
    pub async fn restart(self) -> Self {
        let launch = self.launch.clone();
        self.terminate();
        let ended = self.ended().await;
        assert!(ended.status.success(), "{ended:?}");
        launch.start().await
    }

    /// What its store holds of a session that all callers share, in commit order.
    pub async fn stored_shared(&self, session: &str) -> Vec<Stored> {
        self.launch.stored(store::shared, session).await
    }

    /// What its store holds of an anonymous session, in commit order.
    pub async fn stored(&self, session: &str) -> Vec<Stored> {
        self.launch.stored(store::everybody, session).await
    }

    /// The anonymous sessions that its store lists.
    pub async fn sessions(&self) -> Vec<String> {
        store::sessions_of(&**self.launch.opened().await, &store::everybody(&self.launch.namespace)).await
    }

    /// Where it answers operators, if it does.
    pub fn admin(&self) -> SocketAddr {
        self.process.address(process::ADMIN).expect("the log names the admin address")
    }

    /// What it answers operators.
    pub async fn ask_admin(&self, path: &str) -> Answer {
        let asked = Post::get(path).header("connection", "close").try_send(self.admin()).await;
        asked.expect("the admin listener answers")
    }
}

async fn ended(mut process: Process) -> Ended {
    let status = within("the process to end", async {
        loop {
            if let Some(status) = process.try_wait() {
                return status;
            }
            tokio::time::sleep(PAUSE).await;
        }
    })
    .await;
    Ended { status, log: process.log() }
}

impl Post {
    /// Sends it on a connection of its own and reads the whole answer.
    pub async fn send(&self, proxy: &Proxy) -> Answer {
        self.try_send(proxy.addr()).await.expect("the proxy answers")
    }

    /// Sends it and reads the head of the answer.
    pub async fn start(&self, proxy: &Proxy) -> Exchange {
        Exchange::start(proxy.addr(), &self.bytes()).await.expect("the proxy answers")
    }
}
