//! PostgreSQL servers. As root they run as the user `postgres`, which Debian's package makes.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Instant,
};

use super::{PATIENCE, free_port, pause, redis::make_certificates, wait_until};

/// The password of the user `postgres`.
pub const PASSWORD: &str = "a-password-that-no-log-may-show";

/// Only the role `guarded` is asked for its password: without optimisation each SCRAM exchange takes the client
/// a noticeable time.
const HBA: &str = "
    host all guarded 127.0.0.1/32 scram-sha-256
    host all all     127.0.0.1/32 trust
    host replication all 127.0.0.1/32 trust
    local all all                 trust
";

/// By TCP only encrypted.
const HBA_TLS: &str = "
    hostssl all all 127.0.0.1/32 trust
    local   all all              trust
";

/// Starts the server, and waits for our end of a pipe to close, which it does when this process ends, however it
/// ends. Then it stops the server and removes its files, unless the pipe said `keep`.
const GUARD: &str = r#"
    directory=$1 signal=$2
    shift 2
    "$@" </dev/null >>"$directory/log" 2>&1 &
    server=$!
    told=$(cat)
    kill -$signal $server 2>/dev/null
    kill -CONT $server 2>/dev/null
    wait $server
    [ "$told" = keep ] || rm -rf "$directory"
"#;

/// A running server; it ends with its value, or when this process does.
pub struct Postgres {
    directory: PathBuf,
    port: u16,
    settings: Vec<String>,
    guard: Option<Child>,
}

impl Postgres {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// A server with more settings, as `["synchronous_commit=off"]`.
    pub fn start_with(settings: &[&str]) -> Self {
        let mut server = Self::stopped(settings);
        server.init();
        server.run();
        server
    }

    /// A server that speaks only TLS, with a certificate for the address 127.0.0.1 but for no name. Its
    /// authority's certificate is the [file](Self::file) `ca.pem`.
    pub fn tls() -> Self {
        let mut server = Self::stopped(&["ssl=on"]);
        make_certificates(&server.directory);
        for (setting, file) in [("ssl_cert_file", "server.pem"), ("ssl_key_file", "server.key")] {
            give_away(&server.directory.join(file));
            server.settings.push(format!("{setting}={}", server.file(file)));
        }
        server.init();
        fs::write(server.file("hba"), HBA_TLS).unwrap();
        server.run();
        server
    }

    /// A standby of this server that calls itself `standby`.
    pub fn standby(&self) -> Self {
        let mut server = Self::stopped(&[]);
        let mut copy = unprivileged(&program("pg_basebackup"));
        copy.arg("--pgdata").arg(server.directory.join("data"));
        let primary = format!("host=127.0.0.1 port={} user=postgres application_name=standby", self.port);
        copy.args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--dbname", &primary]);
        run(&mut copy);
        fs::write(server.file("hba"), HBA).unwrap();
        server.run();
        server
    }

    /// Makes a primary of this standby.
    pub fn promote(&self) {
        assert_eq!(self.psql("SELECT pg_promote()"), "t");
    }

    /// A server without files.
    fn stopped(settings: &[&str]) -> Self {
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        Self { directory: directory("postgres"), port: free_port(), settings, guard: None }
    }

    fn init(&self) {
        fs::write(self.file("password"), PASSWORD).unwrap();
        let mut initdb = unprivileged(&program("initdb"));
        initdb
            .arg("--pgdata")
            .arg(self.directory.join("data"))
            .args(["--pwfile", &self.file("password")])
            .args([
                "--username=postgres",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
            ]);
        run(&mut initdb);
        fs::write(self.file("hba"), HBA).unwrap();
    }

    /// Starts it, on its port and with its files, and waits until it takes connections.
    pub fn run(&mut self) {
        assert!(self.guard.is_none(), "it runs already");
        let until = Instant::now() + PATIENCE;
        // What was killed may hold the files for a moment longer; then the server ends again at once.
        'start: loop {
            fs::write(self.directory.join("log"), "").unwrap();
            fs::set_permissions(self.directory.join("log"), fs::Permissions::from_mode(0o666)).unwrap();
            self.guard = Some(self.spawn());
            loop {
                let log = self.log();
                if log.contains("ready to accept ") {
                    return;
                }
                assert!(Instant::now() < until, "PostgreSQL does not start: {log}");
                if log.contains("FATAL") && log.contains("shared memory block") {
                    self.end("keep");
                    pause();
                    continue 'start;
                }
                pause();
            }
        }
    }

    fn spawn(&self) -> Child {
        let mut server = unprivileged(&program("postgres"));
        server.arg("-D").arg(self.directory.join("data"));
        server.arg("-p").arg(self.port.to_string()).arg("-k").arg(&self.directory);
        server.arg("-c").arg(format!("hba_file={}", self.file("hba")));
        let usual = ["listen_addresses=127.0.0.1", "max_connections=300", "shared_buffers=64MB", "fsync=on"];
        for setting in usual.into_iter().chain(self.settings.iter().map(String::as_str)) {
            server.arg("-c").arg(setting);
        }
        guarded(&self.directory, "QUIT", &server)
    }

    /// `kill -9` of every process of the server, as when its machine loses power but not its disk's cache.
    /// [`run`](Self::run) starts it again.
    pub fn kill(&mut self) {
        // One that it starts while they are listed would be left over, wait for those that are gone, and keep the memory
        // without which the server does not start again.
        let postmaster = self.postmaster();
        let is_stopped = || {
            let state = Command::new("ps").args(["-o", "state=", "-p", &postmaster]).output().unwrap();
            state.stdout.trim_ascii_start().starts_with(b"T")
        };
        let stopped = Command::new("kill").args(["-STOP", &postmaster]).status();
        assert!(stopped.is_ok_and(|stopped| stopped.success()), "it runs");
        wait_until("PostgreSQL to start nothing more", is_stopped);
        self.signal("KILL");
        self.end("keep");
    }

    /// Sends a signal to every process of the server: `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        let status =
            Command::new("kill").arg(format!("-{name}")).args(self.pids()).stderr(Stdio::null()).status();
        assert!(status.is_ok(), "kill is there");
    }

    /// `kill -9` of one of the server's processes that serve a client; whether there was one. The server then
    /// ends the others, and mends its files: [`settle`](Self::settle) waits for that.
    pub fn kill_backend(&self) -> bool {
        let backend = "SELECT pid FROM pg_stat_activity
                       WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1";
        let pid = self.psql(backend);
        let signal = |name: &str| {
            Command::new("kill").args([name, &pid]).stderr(Stdio::null()).status().unwrap().success()
        };
        let killed = !pid.is_empty() && signal("-KILL");
        // Until the server has noticed it still answers, and seems to have settled.
        wait_until("PostgreSQL to notice a death", || !killed || !signal("-0"));
        killed
    }

    /// The server's process, then those that it started.
    pub fn pids(&self) -> Vec<String> {
        let postmaster = self.postmaster();
        let children = Command::new("pgrep").args(["-P", &postmaster]).output().expect("pgrep is installed");
        let children = String::from_utf8(children.stdout).unwrap();
        std::iter::once(postmaster).chain(children.lines().map(str::to_owned)).collect()
    }

    fn postmaster(&self) -> String {
        let file = fs::read_to_string(self.directory.join("data/postmaster.pid")).unwrap();
        file.lines().next().unwrap().to_owned()
    }

    fn end(&mut self, told: &str) {
        if let Some(mut guard) = self.guard.take() {
            if let Some(mut pipe) = guard.stdin.take() {
                let _ = pipe.write_all(told.as_bytes());
            }
            let _ = guard.wait();
        }
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path of a file beside the server's data.
    pub fn file(&self, name: &str) -> String {
        self.directory.join(name).to_str().unwrap().to_owned()
    }

    /// With the superuser's name and password, by TCP.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// The same, to a database of this name.
    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres:{PASSWORD}@127.0.0.1:{}/{database}", self.port)
    }

    /// The same through the Unix socket.
    pub fn socket_url(&self) -> String {
        let directory = self.directory.to_str().unwrap().replace('/', "%2F");
        format!("postgres://postgres:{PASSWORD}@{directory}:{}/postgres", self.port)
    }

    /// What the server wrote since it was started last.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// What `psql` says to a statement, as the superuser: rows as lines, columns parted by `|`.
    pub fn psql(&self, sql: &str) -> String {
        let mut psql = Command::new(program("psql"));
        psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]);
        let output =
            psql.args(["--dbname", &self.url(), "--command", sql]).output().expect("psql is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned()
    }

    /// Waits until it answers, as after a crash that it mends by itself.
    pub fn settle(&self) {
        let url = self.url();
        let answers = || {
            let mut psql = Command::new(program("psql"));
            psql.args(["--dbname", &url, "--command", "SELECT 1"])
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            psql.status().expect("psql is installed").success()
        };
        wait_until("PostgreSQL to answer", answers);
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.guard.is_some() {
            self.end("");
        } else {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

/// A directory for a server's files, which it can write to.
pub(super) fn directory(kind: &str) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("session-memory-{kind}-{}-{number}", std::process::id());
    let directory = std::env::temp_dir().join(name);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
    directory
}

/// Runs a server as [`GUARD`] tells; the signal ends it.
pub(super) fn guarded(directory: &Path, signal: &str, server: &Command) -> Child {
    let mut shell = Command::new("sh");
    shell.current_dir("/").args(["-c", GUARD, "guard"]).arg(directory).arg(signal);
    shell.arg(server.get_program()).args(server.get_args());
    shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn is_root() -> bool {
    let me = Command::new("id").arg("-u").output().unwrap();
    me.stdout.trim_ascii() == b"0"
}

/// Makes a file the server's own.
fn give_away(file: &Path) {
    if is_root() {
        run(Command::new("chown").arg("postgres").arg(file));
    }
}

/// Neither PostgreSQL nor PgBouncer runs as root: then they are run as the user `postgres`.
pub(super) fn unprivileged(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--"]).arg(program);
    command.current_dir("/");
    command
}

/// Where Debian (and its kin) and Homebrew keep the server's programs; else the search path.
fn program(name: &str) -> PathBuf {
    let places = ["/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt"];
    let mut found: Vec<PathBuf> = places
        .iter()
        .filter_map(|place| fs::read_dir(place).ok())
        .flat_map(|entries| entries.map_while(Result::ok))
        .map(|version| version.path().join("bin").join(name))
        .filter(|path| {
            path.exists() && (path.starts_with("/usr/lib") || path.to_str().unwrap().contains("postgresql@"))
        })
        .collect();
    found.sort();
    found.pop().unwrap_or_else(|| name.into())
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().expect("PostgreSQL is installed (see tests/run.sh)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
