//! TLS, by rustls: the server's certificate and name are always checked.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::OpenProblem;

/// What makes a connection's TLS, trusting the certificates of this file or else the system's.
pub(super) fn connector(roots: Option<&Path>) -> Result<MakeRustlsConnect, OpenProblem> {
    let roots = match roots {
        Some(path) => from_file(path)?,
        None => from_system()?,
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| OpenProblem::Certificates(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

fn from_file(path: &Path) -> Result<RootCertStore, OpenProblem> {
    let unusable = |what: String| OpenProblem::Certificates(format!("{}: {what}", path.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unusable(error.to_string()))? {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    match roots.is_empty() {
        true => Err(unusable("it holds no certificate".to_owned())),
        false => Ok(roots),
    }
}

fn from_system() -> Result<RootCertStore, OpenProblem> {
    let mut roots = RootCertStore::empty();
    // Some of a system's certificates may be of a kind that is no longer taken.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    match roots.is_empty() {
        true => Err(OpenProblem::Certificates("the system has none".to_owned())),
        false => Ok(roots),
    }
}
