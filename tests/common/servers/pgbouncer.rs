//! PgBouncer, a pooler of PostgreSQL's connections, in transaction mode.

use std::{
    fs,
    io::Write,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Child,
};

use super::{
    free_port,
    postgres::{Postgres, directory, guarded, unprivileged},
    wait_until,
};

/// A running pooler; it ends with its value, or when this process does.
pub struct PgBouncer {
    directory: PathBuf,
    port: u16,
    guard: Option<Child>,
}

impl PgBouncer {
    /// Stands before a server, with more lines of configuration. Everybody is the user `postgres`.
    pub fn before(server: &Postgres, more: &[&str]) -> Self {
        let (directory, port) = (directory("pgbouncer"), free_port());
        let database = format!("* = host=127.0.0.1 port={} user=postgres", server.port());
        let address = format!("listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =");
        let config = format!(
            "[databases]\n{database}\n[pgbouncer]\n{address}\nauth_type = any\npool_mode = transaction\n\
             max_client_conn = 500\nserver_login_retry = 0\n{}\n",
            more.join("\n")
        );
        fs::write(directory.join("pgbouncer.ini"), config).unwrap();
        let mut pooler = Self { directory, port, guard: None };
        pooler.run();
        pooler
    }

    /// Starts it, and waits until it takes connections.
    pub fn run(&mut self) {
        // Debian keeps it where not every user's search path leads.
        let debian = Path::new("/usr/sbin/pgbouncer");
        let mut pooler = unprivileged(if debian.exists() { debian } else { Path::new("pgbouncer") });
        pooler.arg(self.directory.join("pgbouncer.ini"));
        fs::write(self.directory.join("log"), "").unwrap();
        self.guard = Some(guarded(&self.directory, "TERM", &pooler));
        wait_until("PgBouncer (see tests/run.sh) to listen", || {
            TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        });
    }

    /// Ends it at once, with all connections through it. [`run`](Self::run) starts it again.
    pub fn stop(&mut self) {
        self.end("keep");
    }

    /// With the superuser's name, to a database of this name.
    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    fn end(&mut self, told: &str) {
        if let Some(mut guard) = self.guard.take() {
            if let Some(mut pipe) = guard.stdin.take() {
                let _ = pipe.write_all(told.as_bytes());
            }
            let _ = guard.wait();
        }
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        self.end("");
        let _ = fs::remove_dir_all(&self.directory);
    }
}
