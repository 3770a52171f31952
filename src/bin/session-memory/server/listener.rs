//! Listening socket with a bound on its connections.

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
    error::BoxError,
    traffic::{KEEP_ALIVE, USER_TIMEOUT},
};

/// Pause after the system refused a connection, most likely for want of file descriptors.
const BACK_OFF: Duration = Duration::from_millis(100);

/// A listener with a limit of open connections.
pub(crate) struct Listener {
    inner: TcpListener,
    free: Arc<Semaphore>,
    /// The system ends a connection whose client acknowledges nothing for this time.
    patience: Option<Duration>,
}

/// A connection, and its permit among those that may be open.
pub(crate) struct Accepted {
    /// Socket without a runtime, since another one serves it than accepts it.
    pub(crate) stream: TcpStream,
    pub(crate) address: SocketAddr,
    pub(crate) permit: OwnedSemaphorePermit,
}

impl Listener {
    /// Binds an address for at most `most` connections; more wait in the system's queue.
    ///
    /// The system's own limit for a client that acknowledges nothing is never shorter than `send_timeout`.
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
    /// When the system does not name it.
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

/// No delay, since events of a stream are small; probes, since a client's network may be gone.
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
