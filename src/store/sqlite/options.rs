use std::{
    fmt, io,
    num::NonZeroUsize,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use tokio::sync::{oneshot, watch};

use super::{
    Handle, OpenError, OpenProblem, SqliteStore,
    checkpoints::{self, Checkpoints},
    error::OpenFailure,
    file::FileId,
    inline_reader::InlineReader,
    queue::Queue,
    reader::Reader,
    schema,
    setup::{Setup, Synchronous},
    writer::{Batch, Writer},
};
use crate::store::{Retention, retention::Clock};

impl SqliteStore {
    /// Opens the file with the default settings; creates it if it does not exist.
    ///
    /// # Errors
    ///
    /// See [`OpenProblem`].
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self, OpenError> {
        Self::builder(path).open().await
    }

    /// The settings, to begin with the path of the file. Its directory must exist.
    pub fn builder(path: impl Into<PathBuf>) -> SqliteBuilder {
        SqliteBuilder::new(path.into())
    }
}

/// The settings of an [`SqliteStore`].
///
/// # Defaults
///
/// Synchronous `Full`; the defaults of [`Retention`]; expired sessions are removed every minute; four connections
/// read; a call waits five seconds at most for other processes, and as long for its turn; a file of any size.
#[must_use]
pub struct SqliteBuilder {
    path: PathBuf,
    setup: Setup,
    retention: Retention,
    clock: Clock,
    readers: NonZeroUsize,
    sweep_interval: Duration,
}

impl SqliteBuilder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            setup: Setup {
                synchronous: Synchronous::default(),
                busy_timeout: Duration::from_secs(5),
                max_bytes: None,
            },
            retention: Retention::default(),
            clock: Clock::default(),
            readers: const { NonZeroUsize::new(4).unwrap() },
            sweep_interval: Duration::from_secs(60),
        }
    }

    /// When an acknowledged turn is on disk. Default: [`Synchronous::Full`], always.
    pub fn with_synchronous(mut self, synchronous: Synchronous) -> Self {
        self.setup.synchronous = synchronous;
        self
    }

    /// How long sessions are kept, and how much of each. A load that puts an expiry off waits for its write.
    pub fn with_retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Time between two removals of expired sessions, which go in small steps between the appends. Default: a minute; at
    /// most a day. Until then they take room, and no call shows them.
    pub fn with_sweep_interval(mut self, interval: Duration) -> Self {
        self.sweep_interval = interval.min(LONGEST);
        self
    }

    /// The number of threads that answer loads, each with a connection, and of connections for loads on callers' threads.
    /// Default: 4.
    pub fn with_readers(mut self, readers: NonZeroUsize) -> Self {
        self.readers = readers;
        self
    }

    /// How long a transaction waits for those of other processes, and a call for its turn here. Past either
    /// it is refused as unavailable, and nothing was done. Default: 5 seconds; at most a day.
    pub fn with_busy_timeout(mut self, timeout: Duration) -> Self {
        self.setup.busy_timeout = timeout.min(LONGEST);
        self
    }

    /// The largest size of the file in bytes, in whole pages of 4 KiB; then appends are refused as unavailable. Default:
    /// until the disk is full. The write-ahead log beside it is not counted; it grows to
    /// about 64 MiB, and what one transaction or one long read holds.
    pub fn with_max_bytes(mut self, bytes: u64) -> Self {
        self.setup.max_bytes = Some(bytes);
        self
    }

    /// Goes by another clock than the system's; for tests.
    pub fn with_clock(mut self, now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.clock = Clock::new(now);
        self
    }

    /// Opens the file, creates it if it does not exist, and starts the store's threads.
    ///
    /// # Errors
    ///
    /// See [`OpenProblem`].
    ///
    /// # Cancel safety
    ///
    /// When it is dropped nothing stays open.
    pub async fn open(self) -> Result<SqliteStore, OpenError> {
        let path = self.path.clone();
        let (answer, opened) = oneshot::channel();
        let started = thread::Builder::new().name("sqlite-writer".to_owned()).spawn(move || {
            match self.start() {
                Ok((store, writer, running)) => {
                    let _ = answer.send(Ok(store)); // not wanted any more: it is dropped, which ends the run
                    writer.run();
                    drop(running);
                }
                Err(OpenFailure(problem)) => drop(answer.send(Err(problem))),
            }
        });
        let opened = match started {
            Ok(_) => opened.await.unwrap_or_else(|_| Err(OpenProblem::Threads(io::ErrorKind::Other.into()))),
            Err(error) => Err(OpenProblem::Threads(error)),
        };
        opened.map_err(|problem| OpenError::new(&path, problem))
    }

    fn start(self) -> Result<(SqliteStore, Writer, watch::Receiver<()>), OpenFailure> {
        schema::prepare(&self.path)?;
        let connection = schema::open_writer(&self.path, &self.setup)?;
        let file = FileId::of(&self.path);
        let readers = self.open_readers(&file)?;
        let inline = self.open_readers(&file)?;
        for reader in &inline {
            reader.connection.busy_timeout(Duration::ZERO)?; // what has to wait does so on a thread
        }
        let inline = Arc::new(InlineReader::new(inline));
        let (writes, reads) = (Arc::new(Queue::new(QUEUED)), Arc::new(Queue::new(QUEUED)));
        let (running, ends) = watch::channel(());
        let store = SqliteStore {
            handle: Arc::new(Handle {
                writes: writes.clone(),
                reads: reads.clone(),
                inline: inline.clone(),
                clock: self.clock.clone(),
                durability: schema::durability(&connection)?,
                patience: self.setup.busy_timeout,
                running,
            }),
        };
        let mut threads = Vec::new();
        for reader in readers {
            let reads = reads.clone();
            let started =
                thread::Builder::new().name("sqlite-reader".to_owned()).spawn(move || reader.run(&reads));
            threads.push(started.map_err(OpenProblem::Threads)?);
        }
        let writer = Writer {
            connection,
            writes,
            reads,
            inline,
            readers: threads,
            retention: self.retention,
            clock: self.clock,
            patience: self.setup.busy_timeout,
            sweep_interval: self.sweep_interval,
            checkpoints: Checkpoints::new(self.path, file.clone(), checkpoints::WAL),
            file,
            failed: false,
            last: Batch::default(),
        };
        Ok((store, writer, ends))
    }

    fn open_readers(&self, file: &FileId) -> Result<Vec<Reader>, OpenFailure> {
        let open = |_| {
            let connection = schema::open_reader(&self.path, &self.setup)?;
            let (retention, clock) = (self.retention, self.clock.clone());
            Ok(Reader { connection, retention, clock, file: file.clone() })
        };
        (0..self.readers.get()).map(open).collect()
    }
}

impl fmt::Debug for SqliteBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteBuilder")
            .field("path", &self.path)
            .field("retention", &self.retention)
            .finish_non_exhaustive()
    }
}

/// Calls that wait for the writer, and calls that wait for the readers; more wait for room.
const QUEUED: usize = 1024;

const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
