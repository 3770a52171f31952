//! Connections to the upstream: TCP, TLS, pools.

use std::{
    future::Future,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Uri, uri::Scheme};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tower::{Service, ServiceExt};
use tower_session_memory::RequestBody;

use crate::{
    error::BoxError,
    settings::Config,
    traffic::{IdleLimited, KEEP_ALIVE, USER_TIMEOUT},
};

/// The body of a request to the upstream: the client's own, or one with the history in it.
pub(super) type UpstreamRequest = IdleLimited<RequestBody<Incoming>>;

/// A client with a pool of connections.
pub(super) type PooledClient = Client<TimedConnector<HttpsConnector<HttpConnector>>, UpstreamRequest>;

/// A connection that carries nothing is kept for 50 seconds, below the usual 60 seconds of servers.
pub(super) const POOL_IDLE: Duration = Duration::from_secs(50);

/// A client that speaks HTTP/2 where TLS offers it, and one that speaks HTTP/1.1 only.
///
/// # Errors
///
/// When there are no certificates to trust, or a file with them cannot be read.
pub(super) fn clients(config: &Config) -> Result<(PooledClient, PooledClient), BoxError> {
    let tls = tls(config)?;
    let limit = config.settings.connect_timeout;
    let https = || HttpsConnectorBuilder::new().with_tls_config(tls.clone()).https_or_http();
    let both = https().enable_all_versions().wrap_connector(tcp());
    let http1 = https().enable_http1().wrap_connector(tcp());
    Ok((client(both, limit), client(http1, limit)))
}

fn client(inner: HttpsConnector<HttpConnector>, limit: Duration) -> PooledClient {
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(POOL_IDLE)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .http2_keep_alive_timeout(Duration::from_secs(20))
        .build(TimedConnector { inner: Arc::new(inner), limit })
}

fn tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(KEEP_ALIVE));
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    tcp.set_tcp_user_timeout(Some(USER_TIMEOUT));
    tcp
}

/// Trust in the system's certificates and those of `upstream_ca`, which are read only for an https upstream.
fn tls(config: &Config) -> Result<ClientConfig, BoxError> {
    let mut roots = RootCertStore::empty();
    if config.upstream.0.scheme() == Some(&Scheme::HTTPS) {
        let native = rustls_native_certs::load_native_certs();
        for error in &native.errors {
            tracing::warn!(%error, "some of the system's certificates cannot be read");
        }
        roots.add_parsable_certificates(native.certs);
        if let Some(path) = &config.settings.upstream_ca {
            add(&mut roots, path)?;
        }
        if roots.is_empty() {
            return Err("there are no certificates to trust: install the system's, or set upstream_ca".into());
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn add(roots: &mut RootCertStore, path: &Path) -> Result<(), BoxError> {
    let unreadable = |error: &dyn std::fmt::Display| format!("upstream_ca {}: {error}", path.display());
    let mut found = false;
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unreadable(&error))? {
        roots.add(certificate.map_err(|error| unreadable(&error))?).map_err(|error| unreadable(&error))?;
        found = true;
    }
    if found { Ok(()) } else { Err(unreadable(&"there is no certificate in it").into()) }
}

/// A connection was not made within the limit.
#[derive(Debug, thiserror::Error)]
#[error("the upstream was not reached within {0:?}")]
pub(crate) struct TimedOut(Duration);

/// A connector without TLS.
pub(super) fn plain(limit: Duration) -> TimedConnector<HttpConnector> {
    TimedConnector { inner: Arc::new(tcp()), limit }
}

/// A connector with one time limit for the name's look-up, TCP and TLS together.
///
/// The inner connector is behind an `Arc`, since hyper's client clones it with every request.
pub(super) struct TimedConnector<C> {
    inner: Arc<C>,
    limit: Duration,
}

impl<C> Clone for TimedConnector<C> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), limit: self.limit }
    }
}

impl<C> Service<Uri> for TimedConnector<C>
where
    C: Service<Uri, Error: Into<BoxError>, Response: Send, Future: Send> + Clone + Send + Sync + 'static,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self { inner, limit } = self.clone();
        Box::pin(async move {
            match tokio::time::timeout(limit, C::clone(&inner).oneshot(uri)).await {
                Ok(connected) => connected.map_err(Into::into),
                Err(_) => Err(TimedOut(limit).into()),
            }
        })
    }
}
