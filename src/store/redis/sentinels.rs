//! Which server is the master, as the sentinels say.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use redis::{
    ConnectionInfo, ErrorKind, FromRedisValue, RedisConnectionInfo, RedisError, RedisResult, Value,
    aio::MultiplexedConnection,
};
use tokio::time::{sleep, timeout};

use super::{
    server::{address, client, connect, info},
    tls::Tls,
    url::Host,
};

/// Time between two questions to the sentinels whether another server is the master now. One that was replaced takes
/// writes until the sentinels reach it, and all of them are lost.
const ASKED_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Sentinels {
    sentinels: Vec<Sentinel>,
    /// The name that the master has among the sentinels.
    name: String,
    /// The master's settings; its address is asked for.
    server: RedisConnectionInfo,
    tls: Option<Tls>,
}

struct Sentinel {
    info: ConnectionInfo,
    connection: Mutex<Option<MultiplexedConnection>>,
}

/// A server that sentinels named.
pub(super) struct Master {
    host: String,
    port: u16,
    /// Grows with every failover.
    epoch: u64,
}

impl Sentinels {
    pub(super) fn new(
        sentinels: Vec<ConnectionInfo>,
        name: String,
        server: RedisConnectionInfo,
        tls: Option<Tls>,
    ) -> Self {
        let sentinel = |info| Sentinel { info, connection: Mutex::default() };
        Self { sentinels: sentinels.into_iter().map(sentinel).collect(), name, server, tls }
    }

    /// A connection to the master, provided that it knows itself as one: the sentinels may not know yet.
    pub(super) async fn dial(&self, limit: Duration) -> RedisResult<(MultiplexedConnection, Master)> {
        let most = self.sentinels.len() / 2 + 1;
        let master = self.master(limit / 4, most).await?;
        let host = Host { name: master.host.clone(), port: master.port };
        let address = address(&host, self.tls.is_some());
        let server = client(info(address, self.server.clone())?, self.tls.as_ref())?;
        let mut connection = connect(&server, limit / 2).await?;
        match redis::cmd("ROLE").query_async::<Vec<Value>>(&mut connection).await {
            Ok(role) if role.first().and_then(text).is_none_or(|role| role != "master") => {
                Err(not_found("the server that the sentinels named is no master"))
            }
            Err(error) if error.is_io_error() => Err(error),
            // A user that may not ask for the role finds out with the first write.
            Ok(_) | Err(_) => Ok((connection, master)),
        }
    }

    /// Waits until the sentinels name another master.
    pub(super) async fn superseded(&self, master: &Master, limit: Duration) {
        loop {
            sleep(ASKED_EVERY).await;
            if let Ok(now) = self.master(limit / 4, self.sentinels.len()).await
                && now.epoch >= master.epoch
                && (now.port, &now.host) != (master.port, &master.host)
            {
                tracing::warn!("the sentinels name another master: the session store moves to it");
                return;
            }
        }
    }

    /// All sentinels are asked at once, and `enough` answers are waited for. Of what they say the newest counts: one that was
    /// cut off may name the master that was. If the others say nothing, it decides.
    async fn master(&self, limit: Duration, enough: usize) -> RedisResult<Master> {
        let mut answers: FuturesUnordered<_> =
            self.sentinels.iter().map(|sentinel| self.ask(sentinel, limit)).collect();
        let mut named: Vec<Master> = Vec::new();
        let mut last = RedisError::from((ErrorKind::EmptySentinelList, "no sentinel is known"));
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(master) => named.push(master),
                Err(error) => last = error,
            }
            if named.len() >= enough {
                break;
            }
        }
        named.into_iter().max_by_key(|master| master.epoch).ok_or(last)
    }

    async fn ask(&self, sentinel: &Sentinel, limit: Duration) -> RedisResult<Master> {
        let known = sentinel.connection().clone();
        let answer = timeout(limit, async {
            let mut connection = match known {
                Some(connection) => connection,
                None => connect(&client(sentinel.info.clone(), self.tls.as_ref())?, limit).await?,
            };
            let mut question = redis::cmd("SENTINEL");
            question.arg("MASTER").arg(&self.name);
            let answer = question.query_async::<HashMap<String, Value>>(&mut connection).await?;
            Ok((connection, answer))
        });
        let too_late = || RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
        let answer = answer.await.unwrap_or_else(|_| Err(too_late()));
        let (connection, answer) = match answer {
            Ok((connection, answer)) => (Some(connection), Ok(answer)),
            Err(error) => (None, Err(error)),
        };
        *sentinel.connection() = connection;
        match answer {
            Ok(answer) => Master::read(&answer),
            Err(error) if error.detail().is_some_and(|detail| detail.contains("No such master")) => {
                Err(not_found("the sentinels know no master of this name"))
            }
            Err(error) => Err(error),
        }
    }
}

impl Sentinel {
    fn connection(&self) -> MutexGuard<'_, Option<MultiplexedConnection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Master {
    fn read(answer: &HashMap<String, Value>) -> RedisResult<Self> {
        let field = |name: &str| answer.get(name).and_then(text);
        let (host, port, epoch) = (field("ip"), field("port"), field("config-epoch"));
        match (host, port.and_then(|port| port.parse().ok()), epoch.and_then(|epoch| epoch.parse().ok())) {
            (Some(host), Some(port), Some(epoch)) => Ok(Self { host, port, epoch }),
            _ => Err((ErrorKind::UnexpectedReturnType, "a sentinel named no master").into()),
        }
    }
}

fn text(value: &Value) -> Option<String> {
    String::from_redis_value_ref(value).ok()
}

fn not_found(why: &'static str) -> RedisError {
    (ErrorKind::MasterNameNotFoundBySentinel, why).into()
}
