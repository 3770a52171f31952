//! TLS, with certificates that openssl makes.

use std::{path::Path, sync::LazyLock};

use tower_session_memory::store::{Durability, HistoryStore, PostgresStore, postgres::OpenError};

use super::support::{key, say, texts};
use crate::servers::Postgres;

static SERVER: LazyLock<Postgres> = LazyLock::new(Postgres::tls);

fn url(host: &str, options: &str) -> String {
    SERVER.url().replace("127.0.0.1", host) + options
}

async fn refused(url: String) -> OpenError {
    let connected = PostgresStore::builder(&url).with_schema("refused").open().await;
    connected.expect_err(&url)
}

fn trusting(authority: &str) -> String {
    format!("?sslrootcert={authority}")
}

#[tokio::test]
async fn a_conversation_goes_on_over_tls() {
    let url = url("127.0.0.1", &trusting(&SERVER.file("ca.pem")));
    for schema in ["first", "\"first\" ß"] {
        let store = PostgresStore::builder(&url).with_schema(schema).open().await.unwrap();
        say(&store, &key("a"), "one").await;
        say(&store, &key("a"), &"two ".repeat(100_000)).await;
        assert_eq!(texts(&store, &key("a")).await.len(), 2);
        assert_eq!(store.durability().await.unwrap(), Durability::Fsync);
    }
    let encrypted =
        "SELECT count(*) FILTER (WHERE NOT ssl), count(*) > 0 FROM pg_stat_ssl JOIN pg_stat_activity
                     USING (pid) WHERE application_name = 'session-memory'";
    assert_eq!(SERVER.psql(encrypted), "0|t");
}

#[tokio::test]
async fn a_server_of_another_authority_is_refused() {
    let other = tempfile::tempdir().unwrap();
    let own = make_authority(other.path());
    for mode in ["", "&sslmode=require", "&sslmode=verify-full"] {
        let error = refused(url("127.0.0.1", &format!("{}{mode}", trusting(&own)))).await.to_string();
        assert!(error.contains("UnknownIssuer") || error.contains("BadSignature"), "{error}");
    }
    let error = refused(url("127.0.0.1", "?sslmode=require")).await.to_string();
    assert!(error.contains("certificate"), "the system's authorities do not know it: {error}");
}

#[tokio::test]
async fn a_server_of_another_name_is_refused() {
    for mode in ["", "&sslmode=require", "&sslmode=verify-full"] {
        let options = format!("{}{mode}", trusting(&SERVER.file("ca.pem")));
        let error = refused(url("localhost", &options)).await.to_string();
        assert!(error.contains("not valid for name"), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_demands_tls_refuses_plain_text() {
    for options in ["", "?sslmode=disable"] {
        let error = refused(url("127.0.0.1", options)).await.to_string();
        assert!(error.contains("no encryption") && error.contains("28000"), "{error}");
    }
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_tls_is_asked_for() {
    let plain = super::SERVER.url() + &trusting(&SERVER.file("ca.pem"));
    let error = refused(plain).await.to_string();
    assert!(error.contains("server does not support TLS"), "{error}");
}

#[tokio::test]
async fn certificates_that_cannot_be_read_are_an_error() {
    let empty = tempfile::NamedTempFile::new().unwrap();
    for file in ["/there/is/no.pem", empty.path().to_str().unwrap()] {
        let error = refused(url("127.0.0.1", &trusting(file))).await.to_string();
        assert!(error.contains("certificates to trust cannot be used") && error.contains(file), "{error}");
    }
}

/// Another authority than the server's, of the same name; the path of its certificate.
fn make_authority(directory: &Path) -> String {
    let mut openssl = std::process::Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]);
    openssl.args(["-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem"]);
    assert!(openssl.current_dir(directory).output().unwrap().status.success(), "openssl makes a certificate");
    directory.join("ca.pem").to_str().unwrap().to_owned()
}
