//! How a connection is made: to one server, to a Cluster, or to the server that the sentinels name.

use std::time::Duration;

use redis::{
    Client, Cmd, ConnectionAddr, Pipeline, ProtocolVersion, RedisConnectionInfo, RedisResult, Value,
    aio::MultiplexedConnection,
    cluster::{ClusterClient, ClusterClientBuilder},
    cluster_async::ClusterConnection,
    cluster_routing::{MultipleNodeRoutingInfo, Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr},
};

use super::{
    sentinels::{Master, Sentinels},
    server::{address, client, connect, info, tcp},
    timeouts::Timeouts,
    tls::Tls,
    url::{Deployment, Host, Query, RedisUrl},
};

/// A connection that any number of calls share. Its driver task owns the socket, so that a call that is
/// dropped leaves no answer behind for the next.
#[derive(Clone)]
pub(super) enum Connection {
    Server(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    pub(super) async fn command(&mut self, cmd: &Cmd) -> RedisResult<Value> {
        match self {
            Self::Server(connection) => cmd.query_async(connection).await,
            Self::Cluster(connection) => cmd.query_async(connection).await,
        }
    }

    pub(super) async fn pipeline(&mut self, pipeline: &Pipeline) -> RedisResult<Vec<Value>> {
        match self {
            Self::Server(connection) => pipeline.query_async(connection).await,
            Self::Cluster(connection) => pipeline.query_async(connection).await,
        }
    }

    /// Asks the server that takes writes to this slot.
    pub(super) async fn slot(&mut self, slot: u16, cmd: &Cmd) -> RedisResult<Value> {
        match self {
            Self::Server(connection) => cmd.query_async(connection).await,
            Self::Cluster(connection) => {
                let master = SingleNodeRoutingInfo::SpecificNode(Route::new(slot, SlotAddr::Master));
                connection.route_command(cmd.clone(), RoutingInfo::SingleNode(master)).await
            }
        }
    }

    /// Asks every server that takes writes.
    pub(super) async fn every(&mut self, cmd: &Cmd) -> RedisResult<Value> {
        match self {
            Self::Server(connection) => cmd.query_async(connection).await,
            Self::Cluster(connection) => {
                let masters = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
                connection.route_command(cmd.clone(), masters).await
            }
        }
    }
}

pub(super) struct Dialled {
    pub(super) connection: Connection,
    /// The server that the sentinels named.
    pub(super) master: Option<Master>,
}

pub(super) enum Dialer {
    Server(Box<Client>),
    Cluster(Box<ClusterClient>, Duration),
    Sentinel(Box<Sentinels>),
}

impl Dialer {
    pub(super) fn new(url: &RedisUrl, tls: Option<Tls>, limits: Timeouts) -> RedisResult<Self> {
        let settings = settings(url.user.as_deref(), url.password.as_deref(), url.db);
        match &url.place {
            Deployment::Server(host) => {
                let info = info(address(host, tls.is_some()), settings)?;
                Ok(Self::Server(Box::new(client(info, tls.as_ref())?)))
            }
            Deployment::Socket(path) => {
                let info = info(ConnectionAddr::Unix(path.clone()), settings)?;
                Ok(Self::Server(Box::new(client(info, None)?)))
            }
            Deployment::Cluster(hosts) => {
                let client = cluster(hosts, settings, tls, limits)?;
                Ok(Self::Cluster(Box::new(client), limits.attempt))
            }
            Deployment::Sentinel { sentinels, master } => {
                let Query { sentinel_user, sentinel_password, .. } = &url.query;
                let ask = self::settings(sentinel_user.as_deref(), sentinel_password.as_deref(), 0);
                let sentinels = sentinels
                    .iter()
                    .map(|host| info(address(host, tls.is_some()), ask.clone()))
                    .collect::<RedisResult<_>>()?;
                let sentinels = Sentinels::new(sentinels, master.clone(), settings, tls);
                Ok(Self::Sentinel(Box::new(sentinels)))
            }
        }
    }

    pub(super) async fn dial(&self, timeout: Duration) -> RedisResult<Dialled> {
        let alone = |connection| Dialled { connection, master: None };
        match self {
            Self::Server(client) => connect(client, timeout).await.map(Connection::Server).map(alone),
            Self::Cluster(client, _) => {
                client.get_async_connection().await.map(Connection::Cluster).map(alone)
            }
            Self::Sentinel(sentinels) => {
                let (connection, master) = sentinels.dial(timeout).await?;
                Ok(Dialled { connection: Connection::Server(connection), master: Some(master) })
            }
        }
    }

    /// How long it takes at most to connect. In a Cluster a node that says nothing holds up the others, one of
    /// those in the URL and one of those that they name after the other.
    pub(super) fn limit(&self, connect: Duration) -> Duration {
        match self {
            Self::Cluster(_, attempt) => connect.max(*attempt * 2),
            Self::Server(_) | Self::Sentinel(_) => connect,
        }
    }

    /// Waits until what was dialled is no longer the right server, as far as the sentinels know.
    pub(super) async fn superseded(&self, master: Option<&Master>, timeout: Duration) {
        match (self, master) {
            (Self::Sentinel(sentinels), Some(master)) => sentinels.superseded(master, timeout).await,
            _ => std::future::pending().await,
        }
    }
}

fn cluster(
    hosts: &[Host],
    settings: RedisConnectionInfo,
    tls: Option<Tls>,
    Timeouts { attempt, connect, .. }: Timeouts,
) -> RedisResult<ClusterClient> {
    let nodes = hosts
        .iter()
        .map(|host| info(address(host, tls.is_some()), settings.clone()))
        .collect::<RedisResult<Vec<_>>>()?;
    let builder = ClusterClientBuilder::new(nodes)
        .retries(3)
        .min_retry_wait(10)
        .max_retry_wait(200)
        // Calls wait while it connects anew.
        .connection_timeout(attempt.min(connect / 2))
        .response_timeout(attempt)
        .overall_response_timeout(Some(attempt))
        .tcp_settings(tcp())
        .use_protocol(ProtocolVersion::RESP3);
    match tls {
        Some(tls) => tls.cluster(builder).build(),
        None => builder.build(),
    }
}

fn settings(user: Option<&str>, password: Option<&str>, db: i64) -> RedisConnectionInfo {
    let mut settings = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3).set_db(db);
    if let Some(user) = user {
        settings = settings.set_username(user);
    }
    if let Some(password) = password {
        settings = settings.set_password(password);
    }
    settings
}
