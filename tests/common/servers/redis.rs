//! Redis servers.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{PATIENCE, free_port, pause};

/// A running `redis-server`.
pub struct Redis {
    child: Option<Child>,
    directory: TempDir,
    port: u16,
    args: Vec<String>,
    password: Option<String>,
    /// Where its certificates are, if it speaks TLS.
    certificates: Option<PathBuf>,
    sentinel: bool,
}

impl Redis {
    /// A server without a password and without an append-only file.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// A server with more settings, as `["--appendonly", "yes"]`.
    pub fn start_with(args: &[&str]) -> Self {
        let mut server = Self::stopped(args);
        server.run();
        server
    }

    /// A server that is not running yet.
    pub fn stopped(args: &[&str]) -> Self {
        let password = args.windows(2).find(|pair| pair[0] == "--requirepass").map(|pair| pair[1].to_owned());
        Self {
            child: None,
            directory: tempfile::tempdir().unwrap(),
            port: free_port(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            password,
            certificates: None,
            sentinel: false,
        }
    }

    /// A server that only speaks TLS, with a certificate for 127.0.0.1; `demanding` one that asks its clients
    /// for theirs.
    pub fn tls(demanding: bool) -> Self {
        let mut server = Self::stopped(&["--tls-auth-clients", if demanding { "yes" } else { "no" }]);
        make_certificates(server.directory());
        let directory = server.directory().to_path_buf();
        server.certify(&directory);
        server.run();
        server
    }

    /// Makes a server that is not running yet speak only TLS, with the certificates in a directory.
    pub fn certify(&mut self, certificates: &Path) {
        for (setting, file) in [("cert", "server.pem"), ("key", "server.key"), ("ca-cert", "ca.pem")] {
            self.args.push(format!("--tls-{setting}-file"));
            self.args.push(certificates.join(file).to_str().unwrap().to_owned());
        }
        self.certificates = Some(certificates.to_owned());
    }

    /// Makes a server that is not running yet a sentinel with this configuration.
    pub fn watch(&mut self, config: &str) {
        self.sentinel = true;
        fs::write(self.file("sentinel.conf"), config).unwrap();
    }

    /// The path of a file of this server.
    pub fn file(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    /// Starts it, on its port and with its files, and waits until it answers.
    pub fn run(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let output = fs::File::create(self.directory.path().join("output")).unwrap();
        let mut command = Command::new("redis-server");
        let port = self.port.to_string();
        if self.sentinel {
            command.args([&self.file("sentinel.conf"), "--sentinel"]);
        } else {
            command.args(["--save", "", "--unixsocket", &self.file("socket")]);
        }
        match self.certificates {
            None => command.args(["--port", &port]),
            Some(_) => command.args(["--port", "0", "--tls-port", &port]),
        };
        command
            .args(["--bind", "127.0.0.1", "--dir", self.directory.path().to_str().unwrap()])
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output);
        self.child = Some(command.spawn().expect("redis-server is installed"));
        let until = Instant::now() + PATIENCE;
        while !self.answers() {
            assert!(Instant::now() < until, "it does not start: {}", self.output());
            pause();
        }
    }

    fn answers(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(self.address()) else { return false };
        if self.certificates.is_some() {
            return true;
        }
        let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
        let mut answer = [0; 7];
        let pong = stream.write_all(b"PING\r\n").and_then(|()| stream.read_exact(&mut answer));
        pong.is_ok() && (answer.starts_with(b"+PONG") || answer.starts_with(b"-NOAUTH"))
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn output(&self) -> String {
        fs::read_to_string(self.directory.path().join("output")).unwrap_or_default()
    }

    /// What `redis-cli` says to a command.
    pub fn cli(&self, args: &[&str]) -> String {
        let output = self.redis_cli().args(args).output().expect("redis-cli is installed");
        String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned()
    }

    /// `redis-cli`, with the arguments that reach this server.
    pub fn redis_cli(&self) -> Command {
        let mut command = Command::new("redis-cli");
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "--raw"]);
        if let Some(password) = &self.password {
            command.args(["--no-auth-warning", "-a", password]);
        }
        if let Some(certificates) = &self.certificates {
            command.arg("--tls").arg("--cacert").arg(certificates.join("ca.pem"));
        }
        command
    }

    /// Whether one replica at least has all that this server has. `WAIT` speaks of what its own connection saw
    /// before: on a new one it tells nothing.
    pub fn is_replicated(&self) -> bool {
        let mut command = self.redis_cli();
        let mut cli =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("redis-cli is installed");
        cli.stdin.take().unwrap().write_all(b"PING\nWAIT 1 1000\n").unwrap();
        let said = String::from_utf8(cli.wait_with_output().unwrap().stdout).unwrap();
        said.lines().last().is_some_and(|replicas| replicas.parse().is_ok_and(|count: u32| count > 0))
    }

    /// Sends it a signal: `KILL`, `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// How often it was asked to do this since its statistics began.
    pub fn calls(&self, command: &str) -> u64 {
        let stats = self.cli(&["info", "commandstats"]);
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
    }

    /// How many connections it has, besides the one that asks.
    pub fn clients(&self) -> usize {
        self.cli(&["client", "list", "type", "normal"]).lines().count() - 1
    }

    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Kills it; [`run`](Self::run) starts it again.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits for our end of a pipe to close, which it does when this process ends, however it ends. Then it ends the
/// servers and removes their files.
const GUARD: &str = r#"
    cat
    for server; do
        kill -KILL "${server%%:*}" 2>/dev/null
        rm -rf "${server#*:}"
    done
"#;

/// Ends these servers with this process, which never drops a static. Nothing else may end them.
pub fn end_with_this_process(servers: &[&Redis]) {
    static GUARDS: Mutex<Vec<Child>> = Mutex::new(Vec::new());
    let mut guard = Command::new("sh");
    guard.args(["-c", GUARD, "guard"]);
    guard.args(servers.iter().map(|server| format!("{}:{}", server.pid(), server.directory().display())));
    guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
    GUARDS.lock().unwrap().push(guard.spawn().unwrap());
}

/// An authority, and certificates of it for a server and a client.
pub(super) fn make_certificates(directory: &Path) {
    let script = r#"
        ec="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
        openssl req -x509 $ec -days 2 -subj /CN=authority -keyout ca.key -out ca.pem
        printf 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n' > extensions
        for name in server client; do
            openssl req $ec -subj /CN=$name -keyout $name.key -out $name.csr
            openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
                -extfile extensions -out $name.pem
        done"#;
    let made = Command::new("bash").args(["-ec", script]).current_dir(directory).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}
