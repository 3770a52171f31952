//! A PostgreSQL server of the tests' own: one for the whole test binary, ended with it.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use tower_session_memory::store::{PostgresStore, postgres::PostgresBuilder};

pub(crate) const PASSWORD: &str = "a-password-that-no-log-may-show";

/// Only the role `guarded` is asked for its password: without optimisation each SCRAM exchange takes the client
/// a noticeable time.
const HBA: &str = "
    host all guarded 127.0.0.1/32 scram-sha-256
    host all all     127.0.0.1/32 trust
    local all all                 trust
";

/// The server that the tests share. Each uses a schema of its own.
pub(crate) static SERVER: LazyLock<Server> = LazyLock::new(Server::start);

/// A running server; it ends when this process does, however it ends.
pub(crate) struct Server {
    directory: PathBuf,
    pub(crate) port: u16,
    _guard: Child,
}

impl Server {
    fn start() -> Self {
        let directory = std::env::temp_dir().join(format!("session-memory-postgres-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
        fs::write(directory.join("password"), PASSWORD).unwrap();
        let data = directory.join("data");
        let mut initdb = unprivileged(&program("initdb"));
        initdb.arg("--pgdata").arg(&data).arg("--pwfile").arg(directory.join("password")).args([
            "--username=postgres",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ]);
        run(&mut initdb);
        fs::write(directory.join("hba"), HBA).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let guard = start_guarded(&directory, &data, port);
        let server = Self { directory, port, _guard: guard };
        server.wait();
        server
    }

    /// With the superuser's name and password, by TCP.
    pub(crate) fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// The same, to a database of this name.
    pub(crate) fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres:{PASSWORD}@127.0.0.1:{}/{database}", self.port)
    }

    /// The same through the Unix socket.
    pub(crate) fn socket_url(&self) -> String {
        let directory = self.directory.to_str().unwrap().replace('/', "%2F");
        format!("postgres://postgres:{PASSWORD}@{directory}:{}/postgres", self.port)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap()
    }

    fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.log().contains("ready to accept connections") {
            assert!(Instant::now() < deadline, "PostgreSQL does not start: {}", self.log());
            #[expect(clippy::disallowed_methods, reason = "no test runs yet")]
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Starts the server under a shell that waits for our end of a pipe to close, which it does when this process
/// ends, and then stops the server and removes its files.
fn start_guarded(directory: &Path, data: &Path, port: u16) -> Child {
    let script = r#"
        directory=$1
        shift
        "$@" </dev/null >"$directory/log" 2>&1 &
        server=$!
        cat >/dev/null
        kill -QUIT $server
        wait $server
        rm -rf "$directory"
    "#;
    let mut server = unprivileged(&program("postgres"));
    server.arg("-D").arg(data).arg("-p").arg(port.to_string()).arg("-k").arg(directory);
    server.arg("-c").arg(format!("hba_file={}", directory.join("hba").display()));
    for setting in ["listen_addresses=127.0.0.1", "max_connections=300", "shared_buffers=64MB", "fsync=on"] {
        server.arg("-c").arg(setting);
    }
    let mut shell = Command::new("sh");
    shell.current_dir("/").args(["-c", script, "guard"]).arg(directory);
    shell.arg(server.get_program()).args(server.get_args());
    fs::write(directory.join("log"), "").unwrap();
    shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// PostgreSQL does not run as root: then it is run as the user `postgres`, which its package makes.
fn unprivileged(program: &Path) -> Command {
    let me = Command::new("id").arg("-u").output().unwrap();
    if me.stdout.trim_ascii() != b"0" {
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

/// The tables of one test.
pub(crate) struct Schema {
    pub(crate) name: String,
}

impl Schema {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        Self { name: format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed)) }
    }

    pub(crate) fn builder(&self) -> PostgresBuilder {
        PostgresStore::builder(SERVER.url()).with_schema(&self.name)
    }

    pub(crate) async fn connect(&self) -> PostgresStore {
        self.builder().connect().await.unwrap()
    }

    /// Another role's or the superuser's own connection, past the store.
    pub(crate) async fn raw(&self) -> tokio_postgres::Client {
        raw(&SERVER.url()).await
    }

    /// A number that SQL answers; `{}` stands for the schema.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        let sql = sql.replace("{}", &self.name);
        self.raw().await.query_one(&sql, &[]).await.unwrap().get(0)
    }

    /// Runs SQL; `{}` stands for the schema.
    pub(crate) async fn run(&self, sql: &str) {
        self.raw().await.batch_execute(&sql.replace("{}", &self.name)).await.unwrap();
    }
}

pub(crate) async fn raw(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "it ends with the test")]
    tokio::spawn(connection);
    client
}
