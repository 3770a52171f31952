//! Listening: sockets, and how many at once.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::sync::CancellationToken;

use crate::{
    BoxError,
    upstream::{KEEP_ALIVE, USER_TIMEOUT},
};

/// How long to wait after the system refused a connection: out of file descriptors, most likely.
const BACK_OFF: Duration = Duration::from_millis(100);

/// A listener that holds no more than a number of connections.
pub(crate) struct Listener {
    inner: TcpListener,
    free: Arc<Semaphore>,
    /// How long the system lets a client leave unanswered what it was sent.
    patience: Option<Duration>,
}

/// A connection, and its place among those that may be open.
pub(crate) struct Accepted {
    /// Of no runtime: it is served on another one than it was accepted on.
    pub(crate) stream: TcpStream,
    pub(crate) address: SocketAddr,
    pub(crate) permit: OwnedSemaphorePermit,
}

impl Listener {
    /// Binds an address for at most `most` connections; more wait in the system's queue. A client that has taken
    /// nothing for `send_timeout` is for who writes to it to notice, and the system ends no connection before that.
    ///
    /// # Errors
    ///
    /// When the address cannot be bound. The error names it.
    pub(crate) async fn bind(
        address: &str,
        most: usize,
        send_timeout: Option<Duration>,
    ) -> Result<Self, BoxError> {
        let inner = TcpListener::bind(address).await.map_err(|error| {
            let hint = match error.kind() {
                io::ErrorKind::AddrInUse => " (another program listens there)",
                _ => "",
            };
            format!("cannot listen on {address}: {error}{hint}")
        })?;
        let patience = send_timeout.map(|limit| limit.max(USER_TIMEOUT));
        Ok(Self { inner, free: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))), patience })
    }

    /// The address, with the port that was taken.
    ///
    /// # Errors
    ///
    /// When the system does not tell.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    /// The next connection; `None` once `stop` is cancelled.
    pub(crate) async fn accept(&self, stop: &CancellationToken) -> Option<Accepted> {
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                accepted = self.accept_one() => accepted,
            };
            match accepted {
                Ok(accepted) => return Some(accepted),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "connections cannot be accepted");
                    tokio::time::sleep(BACK_OFF).await;
                }
            }
        }
    }

    async fn accept_one(&self) -> io::Result<Accepted> {
        let permit = Arc::clone(&self.free).acquire_owned().await.map_err(io::Error::other)?;
        let (stream, address) = self.inner.accept().await?;
        if let Err(error) = tune(&stream, self.patience) {
            tracing::debug!(%error, "a connection's options cannot be set");
        }
        Ok(Accepted { stream: stream.into_std()?, address, permit })
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// No delay, since events of a stream are small; and a client whose network is gone is noticed.
fn tune(stream: &tokio::net::TcpStream, patience: Option<Duration>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE))?;
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    socket.set_tcp_user_timeout(patience)?;
    #[cfg(not(any(target_os = "android", target_os = "fuchsia", target_os = "linux")))]
    let _ = patience;
    Ok(())
}
