//! Redis Clusters.

use tempfile::TempDir;

use super::{
    redis::{Redis, make_certificates},
    wait_until,
};

/// Six nodes: three masters and a replica of each.
pub struct Cluster {
    pub nodes: Vec<Redis>,
    certificates: Option<TempDir>,
}

/// What every node is set to. With so short a time they soon know each other.
const ARGS: [&str; 6] = ["--cluster-enabled", "yes", "--cluster-node-timeout", SHORT, "--appendonly", "yes"];

/// How long a node may say nothing, in milliseconds, before the others take it for dead.
const SHORT: &str = "2000";
const LONG: &str = "15000";

impl Cluster {
    /// A Cluster that waits for a node that says nothing for a while: a machine that has other things to do may stop
    /// one.
    pub fn start() -> Self {
        Self::of((0..6).map(|_| Redis::stopped(&ARGS)).collect(), None)
    }

    /// A Cluster that only speaks TLS, to its nodes as well, and asks for a password.
    pub fn secure(password: &str) -> Self {
        let certificates = tempfile::tempdir().unwrap();
        make_certificates(certificates.path());
        let guard = ["--requirepass", password, "--masterauth", password];
        let tls = ["--tls-cluster", "yes", "--tls-replication", "yes", "--tls-auth-clients", "no"];
        let args: Vec<&str> = ARGS.into_iter().chain(guard).chain(tls).collect();
        let node = |_| {
            let mut node = Redis::stopped(&args);
            node.certify(certificates.path());
            node
        };
        Self::of((0..6).map(node).collect(), Some(certificates))
    }

    fn of(mut nodes: Vec<Redis>, certificates: Option<TempDir>) -> Self {
        nodes.iter_mut().for_each(Redis::run);
        let mut create = nodes[0].redis_cli();
        create.args(["--cluster", "create"]).args(nodes.iter().map(|node| node.address().to_string()));
        let output = create.args(["--cluster-replicas", "1", "--cluster-yes"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let cluster = Self { nodes, certificates };
        cluster.settle();
        cluster.set("cluster-node-timeout", LONG);
        cluster
    }

    /// From now on a replica soon takes over from a master that says nothing.
    pub fn fail_over_soon(&self) {
        self.set("cluster-replica-no-failover", "no");
        self.set("cluster-node-timeout", SHORT);
    }

    /// From now on it is waited for, as at the start; by a node that was started since, too.
    pub fn fail_over_late(&self) {
        self.set("cluster-node-timeout", LONG);
    }

    /// From now on a replica takes over when it is asked to and only then. The long time would do as little by
    /// itself, but nodes do not vote for the same one again before it is over several times.
    pub fn fail_over_when_asked(&self) {
        self.set("cluster-replica-no-failover", "yes");
        self.set("cluster-node-timeout", SHORT);
    }

    fn set(&self, setting: &str, value: &str) {
        for node in self.nodes.iter().filter(|node| node.is_running()) {
            assert_eq!(node.cli(&["config", "set", setting, value]), "OK");
        }
    }

    /// Waits until all nodes agree and every master has a replica that has all.
    pub fn settle(&self) {
        wait_until("the cluster", || self.is_whole());
    }

    fn is_whole(&self) -> bool {
        self.nodes.iter().all(|node| {
            let nodes = node.cli(&["cluster", "nodes"]);
            let flags = || nodes.lines().filter_map(|line| line.split(' ').nth(2));
            node.cli(&["cluster", "info"]).contains("cluster_state:ok")
                && flags().filter(|flags| flags.contains("slave")).count() == 3
                // Not the flag `nofailover`.
                && !flags().any(|flags| flags.contains(",fail"))
        }) && self.replicas().len() == 3
    }

    /// Replicas that have all that their masters have.
    pub fn replicas(&self) -> Vec<&Redis> {
        let role = |node: &Redis| node.cli(&["role"]);
        let whole = |role: String| role.starts_with("slave") && role.contains("connected");
        self.nodes.iter().filter(|node| whole(role(node))).collect()
    }

    /// The places of the masters among the nodes.
    pub fn masters(&self) -> Vec<usize> {
        let places = (0..self.nodes.len()).filter(|place| self.nodes[*place].is_running());
        places.filter(|place| self.nodes[*place].cli(&["role"]).starts_with("master")).collect()
    }

    /// The place of a replica of the node at a place.
    pub fn replica_of(&self, master: usize) -> usize {
        let port = self.nodes[master].port().to_string();
        let follows = |node: &Redis| {
            let role = node.cli(&["role"]);
            role.starts_with("slave") && role.lines().nth(2) == Some(port.as_str())
        };
        let mut running = (0..self.nodes.len()).filter(|place| self.nodes[*place].is_running());
        running.find(|place| follows(&self.nodes[*place])).expect("the master has a replica")
    }

    pub fn url(&self) -> String {
        self.url_as("")
    }

    /// The same with this before the hosts, as `user:password@`.
    pub fn url_as(&self, user: &str) -> String {
        let hosts: Vec<_> = self.nodes.iter().take(3).map(|node| node.address().to_string()).collect();
        let hosts = hosts.join(",");
        match &self.certificates {
            None => format!("redis-cluster://{user}{hosts}"),
            Some(directory) => {
                format!("rediss-cluster://{user}{hosts}?tls_ca={}", directory.path().join("ca.pem").display())
            }
        }
    }
}
