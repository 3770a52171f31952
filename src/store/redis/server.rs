//! A connection to one server: how its address is written, and with which socket options and TLS it is made.

use std::time::Duration;

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo,
    RedisResult, aio::MultiplexedConnection, io::tcp::TcpSettings,
};

use super::{tls::Tls, url::Host};

pub(super) async fn connect(client: &Client, timeout: Duration) -> RedisResult<MultiplexedConnection> {
    // Calls have a time limit of their own.
    let config =
        AsyncConnectionConfig::new().set_connection_timeout(Some(timeout)).set_response_timeout(None);
    client.get_multiplexed_async_connection_with_config(&config).await
}

pub(super) fn client(info: ConnectionInfo, tls: Option<&Tls>) -> RedisResult<Client> {
    match tls {
        Some(tls) => tls.client(info),
        None => Client::open(info),
    }
}

pub(super) fn info(address: ConnectionAddr, settings: RedisConnectionInfo) -> RedisResult<ConnectionInfo> {
    Ok(address.into_connection_info()?.set_redis_settings(settings).set_tcp_settings(tcp()))
}

pub(super) fn address(host: &Host, tls: bool) -> ConnectionAddr {
    let (name, port) = (host.name.clone(), host.port);
    match tls {
        true => ConnectionAddr::TcpTls { host: name, port, insecure: false, tls_params: None },
        false => ConnectionAddr::Tcp(name, port),
    }
}

/// Small writes leave at once (the client's default is to let them wait), and a peer that fell silent is
/// noticed also while nothing is asked, or after a question that it does not even acknowledge.
pub(super) fn tcp() -> TcpSettings {
    let keepalive = redis::io::tcp::socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5));
    let settings = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(Duration::from_secs(10));
    settings
}
