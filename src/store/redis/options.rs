use std::{
    fmt,
    num::NonZeroUsize,
    path::Path,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    OpenError, OpenProblem, RedisStore, Shared,
    dial::Dialer,
    keys::Keys,
    link::{Link, Replicas},
    log_ends::LogEnds,
    timeouts::Timeouts,
    tls::{Certificates, Tls},
    url::{Deployment, RedisUrl},
};
use crate::store::{Retention, StoreError, StoreErrorKind};

impl RedisStore {
    /// Opens the store with the default settings.
    ///
    /// # Errors
    ///
    /// See [`OpenProblem`].
    pub async fn open(url: impl AsRef<str>) -> Result<Self, OpenError> {
        Self::builder(url).open().await
    }

    /// The settings, to begin with where the server is: see [`RedisUrl`].
    pub fn builder(url: impl AsRef<str>) -> RedisBuilder {
        RedisBuilder::new(url.as_ref())
    }
}

/// The settings of a [`RedisStore`].
///
/// # Defaults
///
/// Keys begin with `session-memory`; the defaults of [`Retention`]; the newest 100,000 sessions of a principal are
/// listed; two connections; one attempt takes 2 seconds at most, a call 5; no waiting for replicas.
#[must_use]
pub struct RedisBuilder {
    url: Result<RedisUrl, OpenError>,
    certificates: Certificates,
    prefix: String,
    retention: Retention,
    listed: NonZeroUsize,
    connections: NonZeroUsize,
    limits: Timeouts,
    replicas: u8,
    ends: Arc<LogEnds>,
}

impl RedisBuilder {
    pub(super) fn new(url: &str) -> Self {
        let url = url.parse::<RedisUrl>().map_err(|error| OpenError::new(None, OpenProblem::Url(error)));
        Self {
            url,
            certificates: Certificates::default(),
            prefix: "session-memory".to_owned(),
            retention: Retention::default(),
            listed: const { NonZeroUsize::new(100_000).unwrap() },
            connections: const { NonZeroUsize::new(2).unwrap() },
            limits: Timeouts {
                connect: Duration::from_secs(2),
                attempt: Duration::from_secs(2),
                call: Duration::from_secs(5),
            },
            replicas: 0,
            ends: Arc::default(),
        }
    }

    /// What the names of all keys begin with; no braces, which would gather them in one hash slot. Default:
    /// `session-memory`. A `prefix` in the URL counts instead.
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// How long sessions are kept, by the server's clock, and how much of each. A time to live is at most about 100 years.
    pub fn with_retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// How many sessions of a principal are listed at most, the newest. Default: 100,000. Older ones can still
    /// be loaded.
    pub fn with_max_listed(mut self, sessions: NonZeroUsize) -> Self {
        self.listed = sessions;
        self
    }

    /// The number of connections that all calls share; in a Cluster, to each of its nodes. Default: 2. More than
    /// one keeps small answers from waiting behind large ones.
    pub fn with_connections(mut self, connections: NonZeroUsize) -> Self {
        self.connections = connections;
        self
    }

    /// What this store learns of its logs, and what `other` does, is known to both. Default: each store learns by
    /// itself. For stores of one server and prefix that have connections of their own, such as one for each thread:
    /// without it, a session whose requests change threads is loaded by a script.
    pub fn with_knowledge_of(mut self, other: &RedisStore) -> Self {
        self.ends = Arc::clone(&other.shared.ends);
        self
    }

    /// How long one attempt waits for an answer, and a call for all its attempts. Default: 2 and 5 seconds. An
    /// attempt without an answer may have been done, and is sent again.
    pub fn with_timeouts(mut self, attempt: Duration, call: Duration) -> Self {
        self.limits = Timeouts { attempt, call: call.max(attempt), ..self.limits };
        self
    }

    /// How long it takes at most to connect. Default: 2 seconds. To one node of a Cluster it takes half of it at
    /// most, and no longer than an attempt.
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.limits.connect = timeout;
        self
    }

    /// The number of replicas that must have an append or a deletion before it is acknowledged (`WAIT`). Default: none.
    /// Until then it is sent again, and is [unknown](StoreErrorKind::Timeout) past its time. In a
    /// Cluster they are replicas of the session's master. Those that share a connection wait one after the other. A `wait_replicas` in the URL counts instead.
    pub fn with_wait_replicas(mut self, replicas: u8) -> Self {
        self.replicas = replicas;
        self
    }

    /// The certificates of authorities that servers are checked against, as PEM. Default: those of the
    /// operating system. A `tls_ca` in the URL counts instead. They must be for the addresses by which the nodes
    /// of a Cluster, and Sentinels, name the servers.
    pub fn with_tls_ca(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.certificates.ca = Some(pem.into());
        self
    }

    /// The certificate and the key to show to servers that ask for one, as PEM. Default: none. `tls_cert` and
    /// `tls_key` in the URL count instead.
    pub fn with_tls_client(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.certificates.client = Some((certificate.into(), key.into()));
        self
    }

    /// Starts the tasks that keep the connections, and waits until a server answers. With TLS it makes `aws-lc-rs`
    /// the process's cryptography for `rustls`, unless one was chosen before.
    ///
    /// # Errors
    ///
    /// See [`OpenProblem`]. A server that cannot be reached is tried for the time of a call. A user that may not
    /// load, and a URL of one server that leads into a Cluster, are errors that say so.
    ///
    /// # Cancel safety
    ///
    /// When it is dropped nothing stays open.
    pub async fn open(self) -> Result<RedisStore, OpenError> {
        let url = self.url?;
        let problem = |problem| OpenError::new(Some(url.clone()), problem);
        let prefix = url.query.prefix.clone().unwrap_or(self.prefix);
        let replicas = url.query.wait_replicas.unwrap_or(self.replicas);
        if prefix.contains(['{', '}']) {
            return Err(problem(OpenProblem::Settings("the key prefix holds a brace")));
        }
        let certificates = read(self.certificates, &url).map_err(problem)?;
        if !url.tls && (certificates.ca.is_some() || certificates.client.is_some()) {
            let why = "certificates are for TLS: the URL begins with rediss://, rediss-cluster:// or rediss-sentinel://";
            return Err(problem(OpenProblem::Settings(why)));
        }
        let tls = url.tls.then(|| Tls::new(&certificates)).transpose();
        let tls = tls.map_err(|why| problem(OpenProblem::Settings(why)))?;
        let limits = self.limits;
        let dialer = Dialer::new(&url, tls, limits).map_err(|error| {
            problem(OpenProblem::Connect(StoreError::with_source(StoreErrorKind::Other, error)))
        })?;
        let (dialer, tasks, stop) = (Arc::new(dialer), TaskTracker::new(), CancellationToken::new());
        let links = |count: usize| {
            (0..count).map(|_| Link::new(dialer.clone(), limits, &tasks, &stop)).collect::<Box<[Link]>>()
        };
        let replicas = (replicas > 0).then_some(Replicas { count: replicas, wait: limits.attempt / 2 });
        let store = RedisStore {
            shared: Arc::new(Shared {
                links: links(self.connections.get()),
                // WAIT holds up what else goes over its connection.
                waiting: links(replicas.map_or(0, |_| self.connections.get())),
                next: AtomicUsize::new(0),
                ends: self.ends,
                keys: Keys::new(prefix, matches!(url.place, Deployment::Cluster(_))),
                retention: self.retention,
                listed: self.listed,
                limits,
                replicas,
                in_cluster: matches!(url.place, Deployment::Cluster(_)),
                fails_over: matches!(url.place, Deployment::Cluster(_) | Deployment::Sentinel { .. }),
                logged: std::sync::Mutex::default(),
                stop: stop.clone(),
                tasks: tasks.clone(),
            }),
        };
        tasks.close();
        for link in &store.shared.links {
            link.up(limits).await.map_err(|error| problem(OpenProblem::Connect(error)))?;
        }
        store.shared.probe().await.map_err(problem)?;
        Ok(store)
    }
}

impl fmt::Debug for RedisBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBuilder")
            .field("url", &self.url.as_ref().ok())
            .field("prefix", &self.prefix)
            .field("retention", &self.retention)
            .finish_non_exhaustive()
    }
}

fn read(mut certificates: Certificates, url: &RedisUrl) -> Result<Certificates, OpenProblem> {
    let file = |path: &Path| std::fs::read(path).map_err(|error| OpenProblem::File(path.to_owned(), error));
    if let Some(path) = &url.query.tls_ca {
        certificates.ca = Some(file(path)?);
    }
    match (&url.query.tls_cert, &url.query.tls_key) {
        (Some(cert), Some(key)) => certificates.client = Some((file(cert)?, file(key)?)),
        (None, None) => {}
        _ => return Err(OpenProblem::Settings("tls_cert and tls_key belong together")),
    }
    Ok(certificates)
}

#[cfg(all(test, not(feature = "redis-tls")))]
mod tests {
    use crate::store::RedisStore;

    #[tokio::test]
    async fn a_url_that_asks_for_tls_is_refused_with_the_name_of_the_missing_feature() {
        for url in ["rediss://localhost", "rediss-cluster://localhost", "rediss-sentinel://localhost/main"] {
            let error = RedisStore::builder(url).open().await.err().map(|error| error.to_string());
            assert!(error.as_ref().is_some_and(|error| error.contains("`redis-tls`")), "{url}: {error:?}");
        }
    }
}
