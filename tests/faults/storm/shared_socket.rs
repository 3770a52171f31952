//! A store as it must not be: its callers share one connection, and each reads its answer by itself.

use std::net::SocketAddr;

use bytes::Bytes;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream},
    net::TcpStream,
    sync::Mutex,
};
use tower_session_memory::{
    history::Record,
    session::SessionKey,
    store::{
        Appended, Cursor, Durability, Epoch, HistoryStore, LoadOptions, Loaded, Page, Scope, SessionPage,
        StoreError, StoreErrorKind,
    },
};

pub struct SharedSocket {
    server: SocketAddr,
    socket: Mutex<Option<BufStream<TcpStream>>>,
}

impl SharedSocket {
    pub fn to(server: SocketAddr) -> Self {
        Self { server, socket: Mutex::default() }
    }

    /// Sends a command and reads the answer, of which only lists and numbers are understood.
    async fn ask(&self, command: &[&[u8]]) -> std::io::Result<Vec<Vec<u8>>> {
        let mut socket = self.socket.lock().await;
        if socket.is_none() {
            *socket = Some(BufStream::new(TcpStream::connect(self.server).await?));
        }
        let socket = socket.as_mut().unwrap();
        let mut request = format!("*{}\r\n", command.len()).into_bytes();
        for part in command {
            request.extend(format!("${}\r\n", part.len()).bytes());
            request.extend_from_slice(part);
            request.extend(b"\r\n");
        }
        socket.write_all(&request).await?;
        socket.flush().await?;
        // If the call is dropped from here on, its answer stays in the socket for the next call.
        let mut line = String::new();
        socket.read_line(&mut line).await?;
        let Some(count) = line.strip_prefix('*').and_then(|count| count.trim().parse().ok()) else {
            return Ok(Vec::new());
        };
        let mut items = Vec::new();
        for _ in 0..count {
            line.clear();
            socket.read_line(&mut line).await?;
            let length: usize = line[1..].trim().parse().map_err(std::io::Error::other)?;
            let mut item = vec![0; length + 2];
            socket.read_exact(&mut item).await?;
            item.truncate(length);
            items.push(item);
        }
        Ok(items)
    }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::with_source(StoreErrorKind::Corrupt, error)
}

fn list(key: &SessionKey) -> Vec<u8> {
    format!("log:{}", key.digest().to_hex()).into_bytes()
}

impl HistoryStore for SharedSocket {
    async fn load(&self, key: &SessionKey, _: impl Into<LoadOptions> + Send) -> Result<Loaded, StoreError> {
        let items = self.ask(&[b"LRANGE", &list(key), b"0", b"-1"]).await.map_err(failed)?;
        let decode = |item: Vec<u8>| Record::decode(Bytes::from(item), key.digest()).map_err(failed);
        let turns = items.into_iter().map(decode).collect::<Result<Vec<_>, _>>()?;
        let newest = turns.last().map(Record::id);
        let cursor = Cursor { epoch: Epoch::UNBORN, count: turns.len() as u64, newest };
        Ok(Loaded::whole(cursor, turns))
    }

    async fn append(&self, key: &SessionKey, at: &Cursor, turn: &Record) -> Result<Appended, StoreError> {
        self.ask(&[b"RPUSH", &list(key), turn.bytes()]).await.map_err(failed)?;
        let cursor = Cursor { count: at.count + 1, newest: Some(turn.id()), ..*at };
        Ok(Appended::Appended { cursor, before: None })
    }

    async fn delete(&self, key: &SessionKey) -> Result<(), StoreError> {
        self.ask(&[b"DEL", &list(key)]).await.map(|_| ()).map_err(failed)
    }

    async fn sessions(&self, _: &Scope, _: &Page) -> Result<SessionPage, StoreError> {
        Ok(SessionPage::default())
    }

    async fn durability(&self) -> Result<Durability, StoreError> {
        Ok(Durability::Unknown)
    }

    fn name(&self) -> &'static str {
        "shared-socket"
    }

    crate::partial_store::nothing_but_sessions!();
}
