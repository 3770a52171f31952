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

/// What every node is set to.
const ARGS: [&str; 6] = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--appendonly", "yes"];

impl Cluster {
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
        cluster
    }

    /// Waits until all nodes agree and every master has a replica that has all.
    pub fn settle(&self) {
        wait_until("the cluster", || self.is_whole());
    }

    fn is_whole(&self) -> bool {
        self.nodes.iter().all(|node| {
            let nodes = node.cli(&["cluster", "nodes"]);
            node.cli(&["cluster", "info"]).contains("cluster_state:ok")
                && nodes.matches(" slave ").count() + nodes.matches(",slave ").count() == 3
                && !nodes.contains("fail")
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
