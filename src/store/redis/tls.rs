//! TLS to the servers, behind the feature `redis-tls`.
//!
//! Without the feature [`Tls`] has no value: a URL that asks for TLS is refused before a connection is made.

pub(super) use self::imp::Tls;

/// Certificates, as PEM.
#[derive(Clone, Default)]
pub(super) struct Certificates {
    pub(super) ca: Option<Vec<u8>>,
    pub(super) client: Option<(Vec<u8>, Vec<u8>)>,
}

#[cfg(feature = "redis-tls")]
mod imp {
    use redis::{
        Client, ClientTlsConfig, ConnectionInfo, RedisResult, TlsCertificates, cluster::ClusterClientBuilder,
    };

    use super::Certificates;

    /// The certificates of connections with TLS.
    #[derive(Clone)]
    pub(in crate::store::redis) struct Tls(TlsCertificates);

    impl Tls {
        /// Makes `aws-lc-rs` the process's cryptography for `rustls`, unless one is installed already.
        ///
        /// The client takes the process's cryptography, and panics where a build offers two and none is installed.
        ///
        /// # Errors
        ///
        /// Without the feature `redis-tls`: the text names the feature.
        pub(in crate::store::redis) fn new(certificates: &Certificates) -> Result<Self, &'static str> {
            if rustls::crypto::CryptoProvider::get_default().is_none() {
                // Another thread may have been quicker, which is as good.
                let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
            }
            let client = certificates.client.clone();
            Ok(Self(TlsCertificates {
                client_tls: client
                    .map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key }),
                root_cert: certificates.ca.clone(),
            }))
        }

        pub(in crate::store::redis) fn client(&self, info: ConnectionInfo) -> RedisResult<Client> {
            Client::build_with_tls(info, self.0.clone())
        }

        pub(in crate::store::redis) fn cluster(self, builder: ClusterClientBuilder) -> ClusterClientBuilder {
            builder.certs(self.0)
        }
    }
}

#[cfg(not(feature = "redis-tls"))]
mod imp {
    use redis::{Client, ConnectionInfo, RedisResult, cluster::ClusterClientBuilder};

    use super::Certificates;

    #[derive(Clone)]
    pub(in crate::store::redis) enum Tls {}

    impl Tls {
        pub(in crate::store::redis) fn new(_certificates: &Certificates) -> Result<Self, &'static str> {
            Err(
                "the URL asks for TLS, which is the feature `redis-tls` of this crate: this build is without it",
            )
        }

        pub(in crate::store::redis) fn client(&self, _info: ConnectionInfo) -> RedisResult<Client> {
            match *self {}
        }

        pub(in crate::store::redis) fn cluster(self, _builder: ClusterClientBuilder) -> ClusterClientBuilder {
            match self {}
        }
    }
}
