//! Clients' side of the proxy. A request meets the files in this order:
//!
//! | file | |
//! |---|---|
//! | `listener` | accepts connections, up to `max_connections` |
//! | `workers` | the threads that serve connections, each with a runtime of its own |
//! | `client_socket` | a connection's bytes: its protocol, time limits of heads and of writes |
//! | `framing` | finds HTTP/1 requests with two lengths, which hyper accepts in silence |
//! | `connection` | one connection from its first byte to its last |
//! | `intake` | one request up to the layer: `gate`, then `admission` |
//! | `gate` | refuses malformed requests, removes hop-by-hop headers |
//! | `admission` | refuses requests beyond `max_requests` |
//! | `send_timeout` | ends an HTTP/2 stream whose client takes nothing |
//! | `wake_gated` | a future that is polled only after a wake |
//! | `drain` | signals, and the end of the process |
//! | `admin` | `/healthz`, `/readyz` and `/metrics`, on a listener of their own |

mod admin;
mod admission;
mod client_socket;
mod connection;
mod drain;
mod framing;
mod gate;
mod intake;
mod listener;
mod send_timeout;
mod wake_gated;
mod workers;

pub(crate) use admin::{Admin, MAX_CONNECTIONS as MAX_ADMIN_CONNECTIONS};
pub(crate) use admission::Admission;
pub(crate) use connection::Server;
pub(crate) use drain::{Signals, drain};
pub(crate) use gate::Gate;
pub(crate) use intake::{App, Intake, ReplyCounters};
pub(crate) use listener::Listener;
pub(crate) use workers::{Workers, here};
