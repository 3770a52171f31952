//! A store in Redis or Valkey, for several machines: one server, a Cluster, or a server behind Sentinels.
//!
//! Redis 6.2 or newer. Every session is one string under one key, so that expiry, eviction and failover never
//! tear one. A load is one round trip that validates the caller's cursor and returns only what came after it. Where
//! this process knows at which byte the log ended, which it does after it read it, and outside a Cluster, these are
//! three plain `GETRANGE`s, at a fifth of the server's time that a script takes. Reads go to the primary.
//!
//! A turn is added by one script, which checks and writes in one atomic step. To a log that is as this process read it,
//! and to a new one, the script only compares and writes: what the turn changes is worked out here. Where another
//! replica's turn came between, a second script follows, which reads the log's header itself; it costs a second
//! round trip and twice the server's time.
//!
//! ```no_run
//! use tower_session_memory::store::RedisStore;
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let store = RedisStore::open("rediss://me:password@redis.internal:6380/0").await?;
//! let cluster = RedisStore::open("redis-cluster://node-1,node-2,node-3").await?;
//! let watched = RedisStore::open("redis-sentinel://s-1,s-2,s-3/main").await?;
//! # Ok(())
//! # }
//! ```
//!
//! [`RedisUrl`] lists the URLs, [`RedisBuilder`] the settings. TLS (`rediss…://`) is the feature `redis-tls`.
//!
//! # What an acknowledgement is worth
//!
//! What the server's own settings make of it: `durability` asks for `appendonly` and `appendfsync`. Without an
//! append-only file it is `none`: a server that is started again has forgotten. So it is with a `maxmemory` and any
//! `maxmemory-policy` but `noeviction`: sessions disappear when memory runs out. With `appendfsync everysec`, its
//! default, about the last second is lost with the machine; `always` waits for the disk. **Replication is
//! asynchronous:** after a failover the newest turns may be missing, and so in a Cluster and behind Sentinels the
//! level is `about-1s` at most, whatever the disk, unless
//! [`with_wait_replicas`](RedisBuilder::with_wait_replicas) has replicas acknowledge each. What is left is whole:
//! a session then ends with an earlier turn, and cursors of what was lost are noticed. A user that may not read the
//! settings makes the level `unknown`. A Cluster's masters are asked, not its replicas: set these the same. What was
//! read is logged when it changes.
//!
//! Sentinels inform a master that they replaced only after seconds. The store asks them every second; what the old
//! one took until then is lost, too. `min-replicas-to-write` bounds that time on the server's side.
//!
//! Set `maxmemory-policy` to `noeviction`, or sessions disappear when memory runs out; then appends are
//! refused as unavailable instead.
//!
//! # Failures
//!
//! Calls over a connection that broke, to a server that is loading or no longer the primary, and during a
//! failover are sent again until their [time](RedisBuilder::with_timeouts) is over. That is safe: a turn is
//! stored once, however often it is sent, and a deletion sent again spares what began after it.
//!
//! # Keys
//!
//! `PREFIX:log:{DIGEST}:SESSION` is a session; `PREFIX:list:{DIGEST}:PRINCIPAL` a sorted set that lists a
//! principal's sessions by the time of their newest turn; `PREFIX:principals:{SHARD}:NAMESPACE` one that lists a
//! namespace's principals likewise, in 16 parts in a Cluster and in one elsewhere. What stands in braces decides on the
//! hash slot in a Cluster. On one server all are written in one step. In a Cluster they are in different slots: the
//! listings are written after the session, in steps of their own. A step that fails is logged, and the session or the
//! principal is not listed until its next turn; what is listed is always looked up, so a deleted or expired session never
//! is. A listing expires up to a sixteenth of the time to live after its last session.
//!
//! # Erasure
//!
//! No listing names every session, so [`delete_principal`](HistoryStore::delete_principal) and
//! [`expire`](HistoryStore::expire) go through the names of all keys (`SCAN`), 64 at a time, and erase each session by a
//! script of its own. In a million keys that takes about a second, beside other traffic.
//!
//! A step after a failover or a restart goes through that server again, and one after slots moved in a Cluster through all
//! servers. Sessions in a slot that is being moved may be missed: erase again when the move is done.
//!
//! # What a user of the server may do
//!
//! `ACL SETUSER memory on >password ~session-memory:* +eval +evalsha +get +getrange +strlen +append +setrange
//! +set +del +exists +scan +info +persist +pexpire +pttl +time +zadd +zrem +zscore +zcount +zremrangebyscore
//! +zremrangebyrank +zrevrangebyscore +hello +select +ping`, and `+config|get` for the durability, `+wait` for `wait_replicas`,
//! `+role` behind Sentinels, `+cluster|slots +asking` in a Cluster. A user of the Sentinels
//! (`sentinel_user`) needs `+sentinel|master +hello`.
//!
//! # Layout
//!
#![doc = include_str!("layout.md")]

mod append;
mod dial;
mod erase;
mod error;
mod hex;
mod keys;
mod layout;
mod link;
mod load;
mod log_ends;
mod options;
mod script;
mod sentinels;
mod server;
mod sessions;
mod settings;
mod timeouts;
mod tls;
mod url;

pub use error::{OpenError, OpenProblem};
pub use options::RedisBuilder;
pub use url::{InvalidRedisUrl, RedisUrl};

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ::redis::{FromRedisValue, Value};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    error::unexpected,
    hex::hex,
    keys::Keys,
    link::{Link, RedisCall, Replicas},
    log_ends::LogEnds,
    script::Invocation,
    timeouts::Timeouts,
};
use super::{
    Appended, Cursor, Durability, Epoch, Erased, HistoryStore, LoadOptions, Loaded, Page, PrincipalPage,
    ReadOptions, RecordPage, Retention, Scope, SessionPage, StoreError, StoreErrorKind, TtlRefresh,
};
use crate::{history::Record, session::SessionKey};

/// A store in Redis or Valkey. The [module](self) tells how it works; [`RedisStore::builder`] has the settings.
///
/// Clones are handles to the same connections, which close when the last one is dropped.
#[derive(Clone)]
pub struct RedisStore {
    shared: Arc<Shared>,
}

struct Shared {
    links: Box<[Link]>,
    /// For writes that wait for replicas.
    waiting: Box<[Link]>,
    next: AtomicUsize,
    keys: Keys,
    ends: Arc<LogEnds>,
    retention: Retention,
    listed: std::num::NonZeroUsize,
    limits: Timeouts,
    replicas: Option<Replicas>,
    in_cluster: bool,
    /// Whether another server may take over without all that was acknowledged.
    fails_over: bool,
    /// The servers' settings as they were logged last.
    logged: std::sync::Mutex<String>,
    /// Ends the tasks that keep the connections.
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl HistoryStore for RedisStore {
    async fn load(
        &self,
        key: &SessionKey,
        options: impl Into<LoadOptions> + Send,
    ) -> Result<Loaded, StoreError> {
        let after = options.into().after;
        self.shared.load(key, after.as_ref()).await
    }

    async fn read(&self, key: &SessionKey, options: &ReadOptions) -> Result<RecordPage, StoreError> {
        self.shared.read_page(key, options).await
    }

    async fn append(&self, key: &SessionKey, at: &Cursor, record: &Record) -> Result<Appended, StoreError> {
        if !record.belongs_to(key.digest()) {
            return Err(StoreError::new(StoreErrorKind::Corrupt));
        }
        self.shared.append(key, at, record).await
    }

    async fn delete(&self, key: &SessionKey) -> Result<(), StoreError> {
        let shared = &self.shared;
        let tombstone = Epoch::random();
        let deletion = Invocation::new(&script::DELETE, &shared.written_keys(key))
            .arg(hex(key.digest().as_bytes()))
            .arg(hex(tombstone.as_bytes()))
            .arg(millis(shared.retention.tombstone_ttl))
            .arg(key.id().as_str())
            .arg(shared.waits())
            .arg(key.principal().as_str());
        let time: u64 = read(shared.write(&deletion).await?)?;
        if shared.in_cluster && time > 0 {
            shared.unlist(key, time).await;
        }
        Ok(())
    }

    async fn sessions(&self, scope: &Scope, page: &Page) -> Result<SessionPage, StoreError> {
        self.shared.sessions(scope, page).await
    }

    async fn principals(&self, namespace: &str, page: &Page) -> Result<PrincipalPage, StoreError> {
        self.shared.principals(namespace, page).await
    }

    async fn delete_principal(&self, scope: &Scope, page: &Page) -> Result<Erased, StoreError> {
        self.shared.delete_principal(scope, page).await
    }

    async fn expire(&self, namespace: &str, age: Duration, page: &Page) -> Result<Erased, StoreError> {
        self.shared.expire(namespace, age, page).await
    }

    async fn durability(&self) -> Result<Durability, StoreError> {
        self.shared.durability().await
    }

    fn name(&self) -> &'static str {
        "redis"
    }

    /// Closes the connections. Calls that are under way end in an error that leaves open whether they were done.
    async fn close(&self) {
        self.shared.stop.cancel();
        self.shared.tasks.wait().await;
    }
}

impl Shared {
    fn link(&self) -> &Link {
        &self.links[self.next.fetch_add(1, Ordering::Relaxed) % self.links.len()]
    }

    async fn write(&self, script: &Invocation) -> Result<Value, StoreError> {
        let answer = match self.replicas {
            None => self.link().call(&RedisCall::Script(script), self.limits).await?,
            Some(replicas) => {
                let next = self.next.fetch_add(1, Ordering::Relaxed);
                let link = &self.waiting[next % self.waiting.len()];
                link.call(&RedisCall::Replicated(script, replicas), self.limits).await?
            }
        };
        Ok(answer.0)
    }

    /// The keys that a write to a session changes; in a Cluster the listings are elsewhere.
    fn written_keys(&self, key: &SessionKey) -> Vec<String> {
        let mut keys = vec![self.keys.log(key)];
        if !self.in_cluster {
            let principal = key.principal().as_str();
            keys.push(self.keys.listing(key.namespace(), principal));
            keys.push(self.keys.principals_of(key.namespace(), principal));
        }
        keys
    }

    /// Whether a write that is sent again is to write again, for calls that wait for its replication.
    fn waits(&self) -> &'static str {
        if self.replicas.is_some() { "1" } else { "0" }
    }

    /// Whether what was listed longer ago than a session lives can be taken off the listing, which expires with
    /// it: not where loads put the expiry off.
    fn sweeps(&self) -> &'static str {
        if self.retention.refresh == TtlRefresh::OnLoad { "0" } else { "1" }
    }
}

fn read<T: FromRedisValue>(value: Value) -> Result<T, StoreError> {
    T::from_redis_value(value).map_err(|_| unexpected())
}

/// At least one millisecond; at most about a hundred years, past which a server counts wrong.
fn millis(time: Duration) -> u64 {
    const MOST: u64 = 100 * 365 * 24 * 3600 * 1000;
    u64::try_from(time.as_millis()).map_or(MOST, |millis| millis.clamp(1, MOST))
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("in_cluster", &self.shared.in_cluster).finish_non_exhaustive()
    }
}
