//! How a connection is made: to one server, to a Cluster, or to the server that the sentinels name.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind,
    FromRedisValue, IntoConnectionInfo, Pipeline, ProtocolVersion, RedisConnectionInfo, RedisError,
    RedisResult, TlsCertificates, Value,
    aio::MultiplexedConnection,
    cluster::{ClusterClient, ClusterClientBuilder},
    cluster_async::ClusterConnection,
    cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo},
    io::tcp::TcpSettings,
};

use super::url::{Host, Place, RedisUrl};

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

pub(super) enum Dialer {
    Server(Box<Client>),
    Cluster(Box<ClusterClient>),
    Sentinel(Box<Sentinels>),
}

pub(super) struct Sentinels {
    sentinels: Vec<ConnectionInfo>,
    /// The place of the one to ask first: the one that answered last.
    first: AtomicUsize,
    master: String,
    /// The server's settings; its address is asked for.
    server: RedisConnectionInfo,
    tls: Option<TlsCertificates>,
}

/// Certificates, as PEM.
#[derive(Clone, Default)]
pub(super) struct Certificates {
    pub(super) ca: Option<Vec<u8>>,
    pub(super) client: Option<(Vec<u8>, Vec<u8>)>,
}

impl Dialer {
    pub(super) fn new(url: &RedisUrl, certificates: &Certificates, attempt: Duration) -> RedisResult<Self> {
        let tls = url.tls.then(|| certificates.to_redis());
        let settings = settings(url.user.as_deref(), url.password.as_deref(), url.db);
        match &url.place {
            Place::Server(host) => {
                let info = info(address(host, tls.is_some()), settings)?;
                Ok(Self::Server(Box::new(client(info, tls.as_ref())?)))
            }
            Place::Socket(path) => {
                let info = info(ConnectionAddr::Unix(path.clone()), settings)?;
                Ok(Self::Server(Box::new(client(info, None)?)))
            }
            Place::Cluster(hosts) => cluster(hosts, settings, tls, attempt).map(Box::new).map(Self::Cluster),
            Place::Sentinel { sentinels, master } => {
                let query = &url.query;
                let ask =
                    self::settings(query.sentinel_user.as_deref(), query.sentinel_password.as_deref(), 0);
                let sentinels = sentinels
                    .iter()
                    .map(|host| info(address(host, tls.is_some()), ask.clone()))
                    .collect::<RedisResult<_>>()?;
                let (first, master) = (AtomicUsize::new(0), master.clone());
                Ok(Self::Sentinel(Box::new(Sentinels { sentinels, first, master, server: settings, tls })))
            }
        }
    }

    pub(super) async fn dial(&self, timeout: Duration) -> RedisResult<Connection> {
        match self {
            Self::Server(client) => connect(client, timeout).await.map(Connection::Server),
            Self::Cluster(client) => client.get_async_connection().await.map(Connection::Cluster),
            Self::Sentinel(sentinels) => sentinels.dial(timeout).await.map(Connection::Server),
        }
    }
}

impl Sentinels {
    /// The first sentinel that answers decides, provided that the server it names knows itself as a master:
    /// a sentinel that was cut off may name the one that was.
    ///
    /// Sentinels that do not answer may take all the time there is: the next call begins with the next one.
    async fn dial(&self, timeout: Duration) -> RedisResult<MultiplexedConnection> {
        let mut last = RedisError::from((ErrorKind::EmptySentinelList, "no sentinel is known"));
        let first = self.first.load(Ordering::Relaxed);
        for place in (first..).take(self.sentinels.len()) {
            let place = place % self.sentinels.len();
            self.first.store(place + 1, Ordering::Relaxed);
            match self.dial_by(&self.sentinels[place], timeout).await {
                Ok(connection) => {
                    self.first.store(place, Ordering::Relaxed);
                    return Ok(connection);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn dial_by(
        &self,
        sentinel: &ConnectionInfo,
        timeout: Duration,
    ) -> RedisResult<MultiplexedConnection> {
        let timeout = timeout / 4;
        let mut asked = connect(&client(sentinel.clone(), self.tls.as_ref())?, timeout).await?;
        let mut question = redis::cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.master);
        let Some((name, port)) = question.query_async::<Option<(String, u16)>>(&mut asked).await? else {
            let kind = ErrorKind::MasterNameNotFoundBySentinel;
            return Err((kind, "the sentinels know no master of this name").into());
        };
        let address = address(&Host { name, port }, self.tls.is_some());
        let server = client(info(address, self.server.clone())?, self.tls.as_ref())?;
        let mut connection = connect(&server, timeout).await?;
        match redis::cmd("ROLE").query_async::<Vec<Value>>(&mut connection).await {
            Ok(role) if role.first().map(text) != Some(Some("master".to_owned())) => Err((
                ErrorKind::MasterNameNotFoundBySentinel,
                "the server that a sentinel named is no master",
            )
                .into()),
            Err(error) if error.is_io_error() => Err(error),
            // A user that may not ask for the role finds out with the first write.
            Ok(_) | Err(_) => Ok(connection),
        }
    }
}

impl Certificates {
    fn to_redis(&self) -> TlsCertificates {
        let client = self.client.clone();
        TlsCertificates {
            client_tls: client.map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key }),
            root_cert: self.ca.clone(),
        }
    }
}

fn text(value: &Value) -> Option<String> {
    String::from_redis_value_ref(value).ok()
}

async fn connect(client: &Client, timeout: Duration) -> RedisResult<MultiplexedConnection> {
    // Calls have a time limit of their own.
    let config =
        AsyncConnectionConfig::new().set_connection_timeout(Some(timeout)).set_response_timeout(None);
    client.get_multiplexed_async_connection_with_config(&config).await
}

fn cluster(
    hosts: &[Host],
    settings: RedisConnectionInfo,
    tls: Option<TlsCertificates>,
    attempt: Duration,
) -> RedisResult<ClusterClient> {
    let nodes = hosts
        .iter()
        .map(|host| info(address(host, tls.is_some()), settings.clone()))
        .collect::<RedisResult<Vec<_>>>()?;
    let builder = ClusterClientBuilder::new(nodes)
        .retries(3)
        .min_retry_wait(10)
        .max_retry_wait(200)
        .connection_timeout(attempt / 2)
        .response_timeout(attempt)
        .overall_response_timeout(Some(attempt))
        .tcp_settings(tcp())
        .use_protocol(ProtocolVersion::RESP3);
    match tls {
        Some(certificates) => builder.certs(certificates).build(),
        None => builder.build(),
    }
}

fn client(info: ConnectionInfo, tls: Option<&TlsCertificates>) -> RedisResult<Client> {
    match tls {
        Some(certificates) => Client::build_with_tls(info, certificates.clone()),
        None => Client::open(info),
    }
}

fn info(address: ConnectionAddr, settings: RedisConnectionInfo) -> RedisResult<ConnectionInfo> {
    Ok(address.into_connection_info()?.set_redis_settings(settings).set_tcp_settings(tcp()))
}

fn address(host: &Host, tls: bool) -> ConnectionAddr {
    let (name, port) = (host.name.clone(), host.port);
    match tls {
        true => ConnectionAddr::TcpTls { host: name, port, insecure: false, tls_params: None },
        false => ConnectionAddr::Tcp(name, port),
    }
}

/// Small writes leave at once (the client's default is to let them wait), and a peer that fell silent is
/// noticed also while nothing is asked.
fn tcp() -> TcpSettings {
    let keepalive = redis::io::tcp::socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5));
    TcpSettings::default().set_nodelay(true).set_keepalive(keepalive)
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
