//! nginx as a proxy in front of the upstream: two workers, a pool of connections, no buffers, no log.

use std::{fs, net::SocketAddr, path::Path, process::Command};

use crate::{error::BoxError, process::Process, servers};

/// Not everybody has `sbin` in the search path.
const PLACES: [&str; 4] =
    ["/usr/sbin/nginx", "/usr/bin/nginx", "/usr/local/bin/nginx", "/opt/homebrew/bin/nginx"];

/// # Errors
///
/// When nginx is not installed, or does not start.
pub(crate) fn start(upstream: SocketAddr, directory: &Path) -> Result<Process, BoxError> {
    let program = PLACES.into_iter().find(|place| Path::new(place).exists()).ok_or(
        "nginx is not there: install the Debian package nginx-light, or leave it out with --without nginx",
    )?;
    let port = servers::free_port();
    let home = directory.join(format!("nginx-{port}"));
    fs::create_dir_all(&home)?;
    let file = home.join("nginx.conf");
    fs::write(&file, configuration(upstream, port, &home))?;
    let mut command = Command::new(program);
    command.arg("-p").arg(&home).arg("-e").arg(home.join("errors")).arg("-c").arg(&file);
    Process::foreign(&command, "TERM", ([127, 0, 0, 1], port).into(), &home.join("output"))
}

fn configuration(upstream: SocketAddr, port: u16, home: &Path) -> String {
    let home = home.display();
    // Under root the workers would run as nginx's default user, which cannot enter our directory.
    let user = if is_root() { "user root;" } else { "" };
    format!(
        r#"
daemon off;
{user}
worker_processes 2;
worker_rlimit_nofile 20000;
pid {home}/pid;
error_log {home}/errors crit;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {home}/bodies;
    proxy_temp_path {home}/replies;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    client_max_body_size 64m;
    client_body_buffer_size 64k;
    keepalive_requests 1000000000;
    tcp_nodelay on;
    upstream model {{
        server {upstream};
        keepalive 1024;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://model;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_request_buffering off;
            proxy_read_timeout 10m;
        }}
    }}
}}
"#
    )
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|me| me.stdout.trim_ascii() == b"0")
}
