//! Redis servers behind Sentinels.

use tempfile::TempDir;

use super::{
    redis::{Redis, make_certificates},
    wait_until,
};

/// A master of the name `main`, its replica, and three sentinels.
pub struct Watched {
    pub servers: Vec<Redis>,
    pub sentinels: Vec<Redis>,
    certificates: Option<TempDir>,
}

/// How long a server may say nothing, in milliseconds, before the sentinels take it for dead.
const SHORT: u32 = 1_000;
const LONG: u32 = 30_000;

impl Watched {
    /// Sentinels that wait for a server that says nothing for a while: a machine that has other things to do may stop
    /// one.
    pub fn start() -> Self {
        Self::of(&["--appendonly", "yes"], &[], "", None)
    }

    /// Servers and sentinels that only speak TLS and ask for passwords.
    pub fn secure(password: &str, sentinel_password: &str) -> Self {
        let certificates = tempfile::tempdir().unwrap();
        make_certificates(certificates.path());
        let tls = ["--tls-replication", "yes", "--tls-auth-clients", "no"];
        let guard = ["--appendonly", "yes", "--requirepass", password, "--masterauth", password];
        let args: Vec<&str> = guard.into_iter().chain(tls).collect();
        let watch: Vec<&str> = ["--requirepass", sentinel_password].into_iter().chain(tls).collect();
        let auth = format!("sentinel auth-pass main {password}\n");
        Self::of(&args, &watch, &auth, Some(certificates))
    }

    fn of(args: &[&str], watch: &[&str], config: &str, certificates: Option<TempDir>) -> Self {
        let stopped = |args: &[&str]| {
            let mut server = Redis::stopped(args);
            certificates.iter().for_each(|directory| server.certify(directory.path()));
            server
        };
        let mut master = stopped(args);
        master.run();
        let port = master.port();
        let follow = format!("127.0.0.1 {port}");
        let mut replica = stopped(&[args, &["--replicaof", &follow]].concat());
        replica.run();
        let config = format!(
            "sentinel monitor main 127.0.0.1 {port} 2\n{config}sentinel down-after-milliseconds main {LONG}\n\
             sentinel failover-timeout main 6000\n"
        );
        let sentinel = |_| {
            let mut sentinel = stopped(watch);
            sentinel.watch(&config);
            sentinel.run();
            sentinel
        };
        let sentinels = (0..3).map(sentinel).collect();
        let watched = Self { servers: vec![master, replica], sentinels, certificates };
        watched.settle();
        watched
    }

    /// From now on a master that says nothing is soon replaced.
    pub fn fail_over_soon(&self) {
        self.allow_silence(SHORT);
    }

    /// From now on it is waited for, as at the start.
    pub fn fail_over_late(&self) {
        self.allow_silence(LONG);
    }

    fn allow_silence(&self, millis: u32) {
        for sentinel in &self.sentinels {
            let set = ["sentinel", "set", "main", "down-after-milliseconds", &millis.to_string()];
            assert_eq!(sentinel.cli(&set), "OK");
        }
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
        self.servers.iter().position(|server| server.port() == port).unwrap()
    }

    pub fn url(&self) -> String {
        self.url_as("", "")
    }

    /// The same with this before the hosts, as `user:password@`, and this at the end of the query.
    pub fn url_as(&self, user: &str, query: &str) -> String {
        let hosts: Vec<_> = self.sentinels.iter().map(|sentinel| sentinel.address().to_string()).collect();
        let hosts = hosts.join(",");
        match &self.certificates {
            None => format!("redis-sentinel://{user}{hosts}/main{query}"),
            Some(directory) => {
                let ca = directory.path().join("ca.pem");
                format!("rediss-sentinel://{user}{hosts}/main?tls_ca={}{query}", ca.display())
            }
        }
    }
}
