//! The URL: what the driver reads of it, and what TLS is to be.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use tokio_postgres::{
    Config,
    config::{Host, SslMode, TargetSessionAttrs},
};

use super::OpenProblem;

/// Where to connect, and how.
pub(super) struct Target {
    pub(super) config: Config,
    pub(super) tls: Tls,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tls {
    Off,
    /// The server's certificate is checked, against these roots or else the system's.
    Verified {
        roots: Option<PathBuf>,
    },
}

/// Time without a sign of life after which a connection is given up: <https://www.man7.org/linux/man-pages/man7/tcp.7.html>.
const LIFELESS: Duration = Duration::from_secs(10);
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;
/// The driver's own time before it sends the first keepalive.
const DRIVERS_KEEPALIVE_IDLE: Duration = Duration::from_secs(2 * 60 * 60);

impl Target {
    pub(super) fn read(url: &str) -> Result<Self, OpenProblem> {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(OpenProblem::Url("does not begin with postgres://"));
        }
        let (plain, tls) = take_tls(url)?;
        // The driver's own error may repeat a part of the URL.
        let mut config: Config = plain
            .parse()
            .map_err(|_| OpenProblem::Url("is not a PostgreSQL URL, or has an unknown option"))?;
        if config.get_hosts().is_empty() {
            return Err(OpenProblem::Url("names no host"));
        }
        let tls = match tls {
            Some(tls) => tls,
            None if config.get_hosts().iter().all(is_here)
                && config.get_hostaddrs().iter().all(IpAddr::is_loopback) =>
            {
                Tls::Off
            }
            None => Tls::Verified { roots: None },
        };
        config.ssl_mode(if tls == Tls::Off { SslMode::Disable } else { SslMode::Require });
        // Reads come from the primary: a standby among the hosts, or one that was a primary, is passed over.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        if config.get_application_name().is_none() {
            config.application_name("session-memory");
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(LIFELESS);
        }
        if config.get_keepalives_idle() == DRIVERS_KEEPALIVE_IDLE {
            config.keepalives_idle(KEEPALIVE_IDLE);
        }
        if config.get_keepalives_interval().is_none() {
            config.keepalives_interval(KEEPALIVE_INTERVAL);
        }
        if config.get_keepalives_retries().is_none() {
            config.keepalives_retries(KEEPALIVE_RETRIES);
        }
        Ok(Self { config, tls })
    }
}

/// The URL without what it says of TLS, and that. The driver knows fewer modes than libpq, and no files.
fn take_tls(url: &str) -> Result<(String, Option<Tls>), OpenProblem> {
    // What stands before the first @ is user and password.
    let credentials = url.find('@').map_or(0, |at| at + 1);
    let Some(question) = url[credentials..].find('?').map(|at| credentials + at) else {
        return Ok((url.to_owned(), None));
    };
    let (mut mode, mut roots, mut kept) = (None, None, Vec::new());
    for option in url[question + 1..].split('&') {
        match option.split_once('=') {
            Some(("sslmode", value)) => mode = Some(value),
            Some(("sslrootcert", value)) => roots = Some(decode(value)?),
            _ => kept.push(option),
        }
    }
    let tls = match mode {
        Some("disable") if roots.is_none() => Some(Tls::Off),
        Some("disable") => return Err(OpenProblem::Url("has sslmode=disable and an sslrootcert")),
        Some("require" | "verify-ca" | "verify-full") => Some(Tls::Verified { roots }),
        None => roots.map(|roots| Tls::Verified { roots: Some(roots) }),
        Some(_) => {
            return Err(OpenProblem::Url("has an sslmode that is none of disable, require and verify-full"));
        }
    };
    Ok((format!("{}?{}", &url[..question], kept.join("&")), tls))
}

fn decode(value: &str) -> Result<PathBuf, OpenProblem> {
    let decoded = percent_encoding::percent_decode_str(value).decode_utf8();
    decoded
        .map(|path| PathBuf::from(path.into_owned()))
        .map_err(|_| OpenProblem::Url("has an sslrootcert that is no path"))
}

/// Whether what is sent there does not leave the machine.
fn is_here(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
        }
        #[cfg(unix)]
        Host::Unix(_) => true,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn tls(url: &str) -> Tls {
        Target::read(url).unwrap().tls
    }

    #[test]
    fn what_leaves_the_machine_is_encrypted_unless_it_is_switched_off() {
        let system = Tls::Verified { roots: None };
        assert_eq!(tls("postgres://u:p@db.example/app"), system);
        assert_eq!(tls("postgres://u:p@db.example/app?sslmode=require"), system);
        assert_eq!(tls("postgresql://u:p@db.example/app?sslmode=verify-full&connect_timeout=3"), system);
        assert_eq!(tls("postgres://u@127.0.0.1,db.example/app"), system, "one of the hosts is elsewhere");
        let elsewhere = "postgres://u@localhost,localhost/app?hostaddr=127.0.0.1,192.0.2.1";
        assert_eq!(tls(elsewhere), system, "the address counts, not the name");
        assert_eq!(tls("postgres://u@localhost/app?hostaddr=127.0.0.1"), Tls::Off);
        let own = Tls::Verified { roots: Some("/etc/a b.pem".into()) };
        assert_eq!(tls("postgres://u@db/app?sslrootcert=/etc/a%20b.pem"), own);
        for url in [
            "postgres://u:p@db.example/app?sslmode=disable",
            "postgres://u@127.0.0.1:5433/app",
            "postgres://u@[::1]/app",
            "postgres://u@localhost/app",
            "postgres://u@%2Fvar%2Frun%2Fpostgresql/app",
        ] {
            assert_eq!(tls(url), Tls::Off, "{url}");
        }
    }

    #[test]
    fn a_url_that_cannot_be_used_is_refused_without_being_repeated() {
        for url in [
            "host=localhost password=hunter2",
            "mysql://u:hunter2@db/app",
            "postgres://u:hunter2@db/app?sslmode=prefer",
            "postgres://u:hunter2@db/app?sslmode=disable&sslrootcert=/a",
            "postgres://u:hunter2@db:port/app",
            "postgres://u:hunter2@db/app?hunter2=hunter2",
            "postgres:///app?password=hunter2",
        ] {
            let problem = Target::read(url).err().unwrap();
            assert!(matches!(problem, OpenProblem::Url(_)), "{url}: {problem}");
            assert!(!format!("{problem} {problem:?}").contains("hunter2"), "{problem:?}");
        }
    }

    #[test]
    fn a_server_that_went_silent_is_noticed() {
        let config = Target::read("postgres://u@localhost/app").unwrap().config;
        assert_eq!(config.get_tcp_user_timeout(), Some(&LIFELESS));
        assert_eq!(config.get_keepalives_idle(), KEEPALIVE_IDLE);
        let config = Target::read("postgres://u@localhost/app?tcp_user_timeout=3").unwrap().config;
        assert_eq!(config.get_tcp_user_timeout(), Some(&Duration::from_secs(3)), "the URL's own counts");
    }
}
