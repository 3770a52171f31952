//! Redis servers, Clusters, and servers behind Sentinels.

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

use super::{PATIENCE, free_port, pause, wait_until};

/// A running `redis-server`.
pub struct Redis {
    child: Option<Child>,
    directory: TempDir,
    port: u16,
    args: Vec<String>,
    password: Option<String>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Server,
    Tls,
    Sentinel,
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
            kind: Kind::Server,
        }
    }

    /// A server that only speaks TLS, with a certificate for 127.0.0.1; `demanding` one that asks its clients
    /// for theirs.
    pub fn tls(demanding: bool) -> Self {
        let mut server = Self::stopped(&["--tls-auth-clients", if demanding { "yes" } else { "no" }]);
        server.kind = Kind::Tls;
        make_certificates(server.directory());
        for (setting, file) in [("cert", "server.pem"), ("key", "server.key"), ("ca-cert", "ca.pem")] {
            server.args.push(format!("--tls-{setting}-file"));
            server.args.push(server.file(file));
        }
        server.run();
        server
    }

    /// A sentinel that watches a master of the name `main`.
    pub fn sentinel(master: &Self) -> Self {
        let mut sentinel = Self::stopped(&[]);
        sentinel.kind = Kind::Sentinel;
        let port = master.port;
        let config = format!(
            "sentinel monitor main 127.0.0.1 {port} 2\nsentinel down-after-milliseconds main 1000\n\
             sentinel failover-timeout main 6000\n"
        );
        fs::write(sentinel.file("sentinel.conf"), config).unwrap();
        sentinel.run();
        sentinel
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
        match self.kind {
            Kind::Server => command.args(["--port", &port]),
            Kind::Tls => command.args(["--port", "0", "--tls-port", &port]),
            Kind::Sentinel => command.args([&self.file("sentinel.conf"), "--sentinel", "--port", &port]),
        };
        if self.kind != Kind::Sentinel {
            command.args(["--save", "", "--unixsocket", &self.file("socket")]);
        }
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
        if self.kind == Kind::Tls {
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
        let mut command = Command::new("redis-cli");
        match self.kind {
            // It need not show its certificate there.
            Kind::Tls => command.args(["-s", &self.file("socket"), "--raw"]),
            _ => command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "--raw"]),
        };
        if let Some(password) = &self.password {
            command.args(["--no-auth-warning", "-a", password]);
        }
        let output = command.args(args).output().expect("redis-cli is installed");
        String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned()
    }

    /// Sends it a signal: `KILL`, `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
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

/// Ends these servers with this process, which never drops a static. Nobody else may end them.
pub fn end_with_this_process(servers: &[&Redis]) {
    static GUARDS: Mutex<Vec<Child>> = Mutex::new(Vec::new());
    let mut guard = Command::new("sh");
    guard.args(["-c", GUARD, "guard"]);
    guard.args(servers.iter().map(|server| format!("{}:{}", server.pid(), server.directory().display())));
    guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
    GUARDS.lock().unwrap().push(guard.spawn().unwrap());
}

/// Six nodes: three masters and a replica of each.
pub struct Cluster {
    pub nodes: Vec<Redis>,
}

impl Cluster {
    pub fn start() -> Self {
        let args = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--appendonly", "yes"];
        let nodes: Vec<Redis> = (0..6).map(|_| Redis::start_with(&args)).collect();
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]).args(nodes.iter().map(|node| node.address().to_string()));
        let output = create.args(["--cluster-replicas", "1", "--cluster-yes"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let cluster = Self { nodes };
        wait_until("the cluster", || cluster.is_whole());
        cluster
    }

    fn is_whole(&self) -> bool {
        self.nodes.iter().all(|node| {
            let nodes = node.cli(&["cluster", "nodes"]);
            node.cli(&["cluster", "info"]).contains("cluster_state:ok")
                && nodes.matches(" slave ").count() + nodes.matches(",slave ").count() == 3
        }) && self.replicas().len() == 3
    }

    /// Replicas that have all that their masters have.
    pub fn replicas(&self) -> Vec<&Redis> {
        self.nodes
            .iter()
            .filter(|node| node.cli(&["role"]).contains("connected"))
            .filter(|node| node.cli(&["role"]).starts_with("slave"))
            .collect()
    }

    pub fn url(&self) -> String {
        let hosts: Vec<_> = self.nodes.iter().take(3).map(|node| node.address().to_string()).collect();
        format!("redis-cluster://{}", hosts.join(","))
    }
}

/// A master, its replica, and three sentinels.
pub struct Watched {
    pub servers: Vec<Redis>,
    pub sentinels: Vec<Redis>,
}

impl Watched {
    pub fn start() -> Self {
        let master = Redis::start_with(&["--appendonly", "yes"]);
        let port = master.port.to_string();
        let replica =
            Redis::start_with(&["--appendonly", "yes", "--replicaof", &format!("127.0.0.1 {port}")]);
        let sentinels = (0..3).map(|_| Redis::sentinel(&master)).collect();
        let watched = Self { servers: vec![master, replica], sentinels };
        watched.settle();
        watched
    }

    /// Waits until the sentinels know each other and the replica has what its master has.
    pub fn settle(&self) {
        let knows = |sentinel: &Redis| {
            let state = sentinel.cli(&["info", "sentinel"]);
            state.contains("status=ok") && state.contains("slaves=1") && state.contains("sentinels=3")
        };
        wait_until("the sentinels", || self.sentinels.iter().all(knows));
        let caught_up = || {
            let roles: Vec<_> = self.servers.iter().map(|server| server.cli(&["role"])).collect();
            roles.iter().any(|role| role.starts_with("slave") && role.contains("connected"))
                && roles.iter().any(|role| role.starts_with("master"))
        };
        wait_until("the replica", caught_up);
    }

    /// The place of the master among the servers, as the sentinels see it.
    pub fn master(&self) -> usize {
        let port = self.sentinels[0].cli(&["sentinel", "get-master-addr-by-name", "main"]);
        let port: u16 = port.lines().nth(1).unwrap().parse().unwrap();
        self.servers.iter().position(|server| server.port == port).unwrap()
    }

    pub fn url(&self) -> String {
        let hosts: Vec<_> = self.sentinels.iter().map(|sentinel| sentinel.address().to_string()).collect();
        format!("redis-sentinel://{}/main", hosts.join(","))
    }
}

/// An authority, and certificates of it for a server and a client.
fn make_certificates(directory: &Path) {
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
