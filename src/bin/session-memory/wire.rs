//! A client's connection: the bytes that told its protocol, a watcher of its framing, a limit for heads, and one for
//! a client that does not read.

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

use crate::{
    deadline::Deadline,
    framing::{Ambiguous, Watcher},
};

/// What an HTTP/2 connection with prior knowledge begins with (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection whose first bytes have been looked at.
pub(crate) struct Wire {
    stream: TcpStream,
    first: [u8; PREFACE.len()],
    /// The part of `first` that has not been read.
    unread: std::ops::Range<usize>,
    watch: Option<Watch>,
    /// How long the client may take nothing of what is to be written.
    send_timeout: Option<Duration>,
    stalled: Deadline,
    written: Arc<AtomicU64>,
}

/// What is watched of an HTTP/1 connection.
struct Watch {
    framing: Watcher,
    ambiguous: Arc<Ambiguous>,
    /// How long a head may take from its first byte to its last.
    limit: Duration,
    /// When the head that has begun must be whole.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Wire {
    /// Reads until the protocol is known. Waits for the client as long as it takes.
    ///
    /// # Errors
    ///
    /// When the connection fails. A client that closes it without a word is an end of file.
    pub(crate) async fn open(mut stream: TcpStream, send_timeout: Option<Duration>) -> io::Result<Self> {
        let mut first = [0; PREFACE.len()];
        let mut length = 0;
        while length < PREFACE.len() && first[..length] == PREFACE[..length] {
            match stream.read(&mut first[length..]).await? {
                0 if length == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                0 => break,
                read => length += read,
            }
        }
        let (stalled, written) = (Deadline::default(), Arc::default());
        Ok(Self { stream, first, unread: 0..length, watch: None, send_timeout, stalled, written })
    }

    /// Whether the client speaks HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        self.unread.len() == PREFACE.len() && self.first == *PREFACE
    }

    /// Watches the requests of an HTTP/1 connection from here on.
    ///
    /// hyper's own limit for heads also runs between two requests, where a client may be quiet for longer.
    pub(crate) fn watch(&mut self, ambiguous: Arc<Ambiguous>, limit: Duration) {
        self.watch = Some(Watch { framing: Watcher::new(), ambiguous, limit, deadline: None });
    }

    /// How many bytes have been written, from here on.
    pub(crate) fn written(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.written)
    }

    #[inline]
    fn wrote(&mut self, bytes: usize) {
        self.stalled.clear();
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// There is no room to write to. When that is so for too long, it is an error, and the connection is reset: what
    /// the client does not take shall not stay in the system's memory.
    #[cold]
    fn no_room(
        &mut self,
        again: impl FnOnce(&SockRef<'_>) -> io::Result<usize>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let Some(limit) = self.send_timeout else { return Poll::Pending };
        ready!(self.stalled.poll(limit, cx));
        // A socket is called writable when a third of its buffer is free, which may be a megabyte. A client that is
        // slow and steady has taken less, and there is room for that.
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

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let end = self.unread.end.min(self.unread.start + buffer.remaining());
        buffer.put_slice(&self.first[self.unread.start..end]);
        self.unread.start = end;
        // With what comes after them the first bytes are a head, as a rule, and hyper need not grow its buffer.
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

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        match &written {
            Poll::Ready(Ok(bytes)) => self.wrote(*bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => return self.no_room(|socket| socket.send(bytes), cx),
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
            Poll::Pending => return self.no_room(|socket| socket.send_vectored(slices), cx),
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
