//! A client's socket, with what hyper's server lacks: protocol detection, two time limits, a watcher of framing.
//!
//! * The first 24 bytes tell HTTP/2 with prior knowledge from HTTP/1, and are read again by hyper.
//! * A head may take `header_read_timeout` from its first byte. hyper's own limit also runs between two requests,
//!   where `keep_alive_timeout` counts. `tests/proxy/slow.rs` holds both.
//! * A client that takes nothing for `send_timeout` is disconnected. hyper has no limit for writes.
//!   `tests/proxy/slow.rs` holds it.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Sleep,
};

use super::framing::{AmbiguousRequest, FramingWatcher};
use crate::traffic::LazyTimeout;

/// First bytes of an HTTP/2 connection with prior knowledge (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection whose first bytes have been read.
pub(super) struct ClientSocket {
    stream: TcpStream,
    first: [u8; PREFACE.len()],
    /// The part of `first` that hyper has not read yet.
    unread: std::ops::Range<usize>,
    watch: Option<Watch>,
    /// The longest time for which the client may take nothing.
    send_timeout: Option<Duration>,
    stalled: LazyTimeout,
    written: Arc<AtomicU64>,
}

/// Watch over the requests of an HTTP/1 connection.
struct Watch {
    framing: FramingWatcher,
    ambiguous: Arc<AmbiguousRequest>,
    /// The longest time for one head, from its first byte to its last.
    limit: Duration,
    /// The end of that time, for a head that has begun.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl ClientSocket {
    /// Reads until the protocol is known, without a limit of its own.
    ///
    /// # Errors
    ///
    /// When the connection fails. A client that closes it before its first byte is an end of file.
    pub(super) async fn open(mut stream: TcpStream, send_timeout: Option<Duration>) -> io::Result<Self> {
        let mut first = [0; PREFACE.len()];
        let mut length = 0;
        while length < PREFACE.len() && first[..length] == PREFACE[..length] {
            match stream.read(&mut first[length..]).await? {
                0 if length == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                0 => break,
                read => length += read,
            }
        }
        let (stalled, written) = (LazyTimeout::default(), Arc::default());
        Ok(Self { stream, first, unread: 0..length, watch: None, send_timeout, stalled, written })
    }

    /// Whether the client speaks HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        self.unread.len() == PREFACE.len() && self.first == *PREFACE
    }

    /// Watches the requests of an HTTP/1 connection from here on. `limit` is the longest time for one head.
    pub(super) fn watch(&mut self, ambiguous: Arc<AmbiguousRequest>, limit: Duration) {
        self.watch = Some(Watch { framing: FramingWatcher::new(), ambiguous, limit, deadline: None });
    }

    /// A counter of the bytes that are written.
    pub(super) fn written(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.written)
    }

    #[inline]
    fn wrote(&mut self, bytes: usize) {
        self.stalled.clear();
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Waits for the client to take something; past `send_timeout` the connection is reset.
    ///
    /// A reset frees the system's buffer, which a plain close would keep until the client takes it.
    #[cold]
    fn blocked(
        &mut self,
        again: impl FnOnce(&SockRef<'_>) -> io::Result<usize>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let Some(limit) = self.send_timeout else { return Poll::Pending };
        ready!(self.stalled.poll(limit, cx));
        // The system calls a socket writable when a third of its buffer is free, which may be a megabyte. A slow and
        // steady client has taken less, so the write is tried once more.
        let socket = SockRef::from(&self.stream);
        Poll::Ready(match again(&socket) {
            Ok(written) => {
                self.wrote(written);
                Ok(written)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let _ = socket.set_linger(Some(Duration::ZERO));
                let text = format!("the client took nothing of its reply within {limit:?} (send_timeout)");
                Err(io::Error::new(io::ErrorKind::TimedOut, text))
            }
            Err(error) => Err(error),
        })
    }
}

impl Watch {
    fn seen(&mut self, bytes: &[u8]) {
        self.framing.feed(bytes, &self.ambiguous);
        if !self.framing.is_in_head() {
            self.deadline = None;
        } else if self.deadline.is_none() {
            self.deadline = Some(Box::pin(tokio::time::sleep(self.limit)));
        }
    }

    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready())
    }
}

impl AsyncRead for ClientSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let end = self.unread.end.min(self.unread.start + buffer.remaining());
        buffer.put_slice(&self.first[self.unread.start..end]);
        self.unread.start = end;
        // Usually the first bytes and the next ones are one head: read together, hyper's buffer need not grow.
        match Pin::new(&mut self.stream).poll_read(cx, buffer) {
            Poll::Ready(read) => read?,
            Poll::Pending if buffer.filled().len() > before => {}
            Poll::Pending if self.watch.as_mut().is_some_and(|watch| watch.is_late(cx)) => {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            Poll::Pending => return Poll::Pending,
        }
        if let Some(watch) = &mut self.watch {
            watch.seen(&buffer.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        match &written {
            Poll::Ready(Ok(bytes)) => self.wrote(*bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => return self.blocked(|socket| socket.send(bytes), cx),
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        match &written {
            Poll::Ready(Ok(bytes)) => self.wrote(*bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => return self.blocked(|socket| socket.send_vectored(slices), cx),
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
