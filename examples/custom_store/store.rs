//! A durable store that keeps each session in one file, for some thousand sessions on one machine.
//!
//! | file | contents |
//! |---|---|
//! | `DIGEST.session` | a line of JSON ([`Session`]), then the bytes of the records |
//! | `lock` | nothing: a change holds its lock, so that threads and processes change one session after the other |
//!
//! A change writes the session to a new file and renames that over the old one. So a reader needs no lock, and a crash
//! leaves the session as it was before or after. A store in a bucket or a document database looks much the same, with
//! a conditional write in place of the lock.
//!
//! | what the contract asks for | where it stands |
//! |---|---|
//! | a record is added once, and never to a deleted log | [`Files::append`] |
//! | a cursor names a place in one log | [`Session::behind`] |
//! | a log is trimmed in whole exchanges | [`Session::push`] |
//! | a call may be dropped at any await point | [`FileStore::run`] |
//! | erasures go in bounded steps, and may be begun again | [`Files::erase`] |

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio_util::task::TaskTracker;
use tower_session_memory::{
    history::{Record, RecordId},
    session::{Principal, SessionKey},
    store::{
        Appended, Cursor, Durability, Epoch, Erased, HistoryStore, LoadOptions, Loaded, Page, PrincipalPage,
        PrincipalSummary, ReadOptions, RecordPage, Retention, Scope, SessionPage, SessionSummary, StoreError,
        StoreErrorKind, TtlRefresh,
    },
};

/// A store of files in a directory. Clones are handles to the same store.
#[derive(Clone)]
pub(crate) struct FileStore {
    files: Arc<Files>,
    calls: TaskTracker,
}

impl FileStore {
    /// Opens the store, and makes the directory if there is none.
    ///
    /// # Errors
    ///
    /// When the directory or a file in it cannot be made.
    pub(crate) fn open(directory: impl Into<PathBuf>, retention: Retention) -> io::Result<Self> {
        let directory = directory.into();
        fs::create_dir_all(&directory)?;
        let lock = File::create(directory.join("lock"))?;
        lock.lock()?;
        // What a crash left of a write may be of a session that was deleted since.
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "new") {
                fs::remove_file(path)?;
            }
        }
        Ok(Self { files: Arc::new(Files { directory, retention }), calls: TaskTracker::new() })
    }

    /// Runs a call on a thread that may block. It runs to its end, also when the future is dropped: no await point is
    /// within a change.
    async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Files) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let files = Arc::clone(&self.files);
        let done = self.calls.spawn_blocking(move || call(&files)).await;
        done.map_err(|panicked| StoreError::with_source(StoreErrorKind::Other, panicked))?
    }
}

impl HistoryStore for FileStore {
    async fn load(
        &self,
        key: &SessionKey,
        options: impl Into<LoadOptions> + Send,
    ) -> Result<Loaded, StoreError> {
        let (key, after) = (key.clone(), options.into().after);
        self.run(move |files| files.load(&key, after)).await
    }

    async fn read(&self, key: &SessionKey, options: &ReadOptions) -> Result<RecordPage, StoreError> {
        let (key, options) = (key.clone(), *options);
        self.run(move |files| files.read(&key, &options)).await
    }

    async fn append(&self, key: &SessionKey, at: &Cursor, record: &Record) -> Result<Appended, StoreError> {
        let (key, at, record) = (key.clone(), *at, record.clone());
        self.run(move |files| files.append(&key, &at, record)).await
    }

    async fn delete(&self, key: &SessionKey) -> Result<(), StoreError> {
        let key = key.clone();
        self.run(move |files| {
            let _lock = files.lock()?;
            files.write(&Session::tombstone(&key, &files.retention))
        })
        .await
    }

    async fn sessions(&self, scope: &Scope, page: &Page) -> Result<SessionPage, StoreError> {
        let (scope, page) = (scope.clone(), page.clone());
        self.run(move |files| files.sessions(&scope, &page)).await
    }

    async fn principals(&self, namespace: &str, page: &Page) -> Result<PrincipalPage, StoreError> {
        let (namespace, page) = (namespace.to_owned(), page.clone());
        self.run(move |files| files.principals(&namespace, &page)).await
    }

    async fn delete_principal(&self, scope: &Scope, page: &Page) -> Result<Erased, StoreError> {
        let (scope, page) = (scope.clone(), page.clone());
        self.run(move |files| {
            files.erase(
                &page,
                |session| session.is_of(&scope),
                |key| files.write(&Session::tombstone(key, &files.retention)),
            )
        })
        .await
    }

    async fn expire(&self, namespace: &str, age: Duration, page: &Page) -> Result<Erased, StoreError> {
        let (namespace, page) = (namespace.to_owned(), page.clone());
        let before = SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        self.run(move |files| {
            files.erase(
                &page,
                |session| session.namespace == namespace && session.updated < before,
                |key| files.remove(key),
            )
        })
        .await
    }

    async fn durability(&self) -> Result<Durability, StoreError> {
        Ok(Durability::Fsync)
    }

    fn name(&self) -> &'static str {
        "files"
    }

    async fn close(&self) {
        self.calls.close();
        self.calls.wait().await;
    }
}

/// The calls, on a thread that may block.
struct Files {
    directory: PathBuf,
    retention: Retention,
}

impl Files {
    fn load(&self, key: &SessionKey, after: Option<Cursor>) -> Result<Loaded, StoreError> {
        let Some(mut session) = self.find(key)? else { return Ok(Loaded::unknown(after.as_ref())) };
        if self.retention.refresh == TtlRefresh::OnLoad && session.count > 0 {
            let _lock = self.lock()?;
            // It may have been changed before the lock was had.
            let Some(newest) = self.find(key)? else { return Ok(Loaded::unknown(after.as_ref())) };
            session = newest;
            session.expires = SystemTime::now().checked_add(self.retention.ttl);
            self.write(&session)?;
        }
        let cursor = session.cursor();
        Ok(match after.and_then(|after| session.behind(&after)) {
            Some(known) => Loaded::since(cursor, session.records.split_off(known), session.trimmed),
            None => Loaded::whole(cursor, session.records),
        })
    }

    fn read(&self, key: &SessionKey, options: &ReadOptions) -> Result<RecordPage, StoreError> {
        let Some(session) = self.find(key)? else { return Ok(RecordPage::unknown()) };
        let first = options.from.clamp(session.trimmed, session.count);
        let (mut records, mut bytes) = (Vec::new(), 0);
        for record in &session.records[(first - session.trimmed) as usize..] {
            let more = record.bytes().len() as u64;
            if !options.takes(records.len(), bytes, more) {
                break;
            }
            bytes += more;
            records.push(record.clone());
        }
        Ok(RecordPage::new(session.cursor(), first, records))
    }

    fn append(&self, key: &SessionKey, at: &Cursor, record: Record) -> Result<Appended, StoreError> {
        if !record.belongs_to(key.digest()) {
            return Err(StoreError::new(StoreErrorKind::Corrupt));
        }
        let _lock = self.lock()?;
        let found = self.find(key)?;
        if let Some(session) = &found {
            if session.has(record.id()) || session.forgotten.contains(&record.id()) {
                return Ok(Appended::AlreadyThere(session.cursor()));
            }
            if !session.accepts(at) {
                return Ok(Appended::Gone);
            }
        }
        if let Some(parent) = record.parent().record()
            && !found.as_ref().is_some_and(|session| session.has(parent))
        {
            return Ok(Appended::Gone);
        }
        let mut session = found.unwrap_or_else(|| Session::new(key));
        let before = session.cursor().newest;
        session.push(record, &self.retention);
        self.write(&session)?;
        Ok(Appended::Appended { cursor: session.cursor(), before })
    }

    fn sessions(&self, scope: &Scope, page: &Page) -> Result<SessionPage, StoreError> {
        let mut listed = self.listed(|session| session.is_of(scope))?;
        let next = cut(&mut listed, page, |session| session.updated)?;
        let mut answer = SessionPage::default();
        for session in listed {
            answer.sessions.push(session.summary()?);
        }
        answer.next = next;
        Ok(answer)
    }

    fn principals(&self, namespace: &str, page: &Page) -> Result<PrincipalPage, StoreError> {
        let mut newest = BTreeMap::new();
        for session in self.listed(|session| session.namespace == namespace)? {
            let updated = newest.entry(session.principal).or_insert(session.updated);
            *updated = session.updated.max(*updated);
        }
        let mut listed: Vec<_> = newest.into_iter().collect();
        let next = cut(&mut listed, page, |(_, updated)| *updated)?;
        let summary = |(name, updated): (String, _)| PrincipalSummary::new(Principal::new(name), updated);
        let mut answer = PrincipalPage::default();
        answer.principals = listed.into_iter().map(summary).collect();
        answer.next = next;
        Ok(answer)
    }

    /// One step of an erasure. What was erased is listed no more, so each step begins at the first session.
    fn erase(
        &self,
        page: &Page,
        is_meant: impl Fn(&Session) -> bool,
        erase: impl Fn(&SessionKey) -> Result<(), StoreError>,
    ) -> Result<Erased, StoreError> {
        const FURTHER: &str = "further";
        if page.after.as_deref().is_some_and(|after| after != FURTHER) {
            return Err(StoreError::new(StoreErrorKind::Other));
        }
        let mut erased = Erased::default();
        let mut listed = self.listed(&is_meant)?.into_iter();
        for session in listed.by_ref().take(page.size().min(Erased::MAX_SESSIONS)) {
            // A lock for each: one that was changed since it was listed may be meant no more.
            let (_lock, key) = (self.lock()?, session.key()?);
            if let Some(session) = self.find(&key)?.filter(&is_meant).filter(|session| session.count > 0) {
                erase(&key)?;
                erased.add(session.sizes.len() as u64, session.bytes());
            }
        }
        erased.next = listed.next().map(|_| FURTHER.to_owned());
        Ok(erased)
    }

    /// The heads of the sessions that are meant, without tombstones. Files that have expired are removed on the way.
    fn listed(&self, is_meant: impl Fn(&Session) -> bool) -> Result<Vec<Session>, StoreError> {
        let mut listed = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(unavailable)? {
            let path = entry.map_err(unavailable)?.path();
            if path.extension().is_none_or(|extension| extension != "session") {
                continue;
            }
            let Some((session, _)) = open(&path)? else { continue };
            if session.has_expired() {
                let (_lock, key) = (self.lock()?, session.key()?);
                if self.find(&key)?.is_none() {
                    self.remove(&key)?;
                }
            } else if session.count > 0 && is_meant(&session) {
                listed.push(session);
            }
        }
        Ok(listed)
    }

    /// A session and its records, or its tombstone; `None` if there is neither or it has expired.
    fn find(&self, key: &SessionKey) -> Result<Option<Session>, StoreError> {
        let Some((mut session, mut file)) = open(&self.path(key))? else { return Ok(None) };
        if session.has_expired() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(unavailable)?;
        let mut bytes = Bytes::from(bytes);
        for size in &session.sizes {
            if bytes.len() < *size {
                return Err(StoreError::new(StoreErrorKind::Corrupt));
            }
            // This refuses a record of another session, too.
            session.records.push(Record::decode(bytes.split_to(*size), key.digest())?);
        }
        Ok(Some(session))
    }

    /// Replaces the session's file. The caller has the lock.
    fn write(&self, session: &Session) -> Result<(), StoreError> {
        let path = self.path(&session.key()?);
        let new = path.with_extension("new");
        let mut head = serde_json::to_vec(session).map_err(corrupt)?;
        head.push(b'\n');
        let mut file = File::create(&new).map_err(unavailable)?;
        for bytes in
            [head.as_slice()].into_iter().chain(session.records.iter().map(|record| &record.bytes()[..]))
        {
            file.write_all(bytes).map_err(unavailable)?;
        }
        file.sync_all().map_err(unavailable)?;
        fs::rename(new, path).and_then(|()| self.sync()).map_err(unknown)
    }

    fn remove(&self, key: &SessionKey) -> Result<(), StoreError> {
        match fs::remove_file(self.path(key)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unavailable(error)),
            _ => self.sync().map_err(unknown),
        }
    }

    /// Makes new names of files as durable as the files.
    fn sync(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }

    /// Waits for the lock of all changes. It is given up when the file is dropped.
    fn lock(&self) -> Result<File, StoreError> {
        let file = File::open(self.directory.join("lock")).map_err(unavailable)?;
        file.lock().map_err(unavailable)?;
        Ok(file)
    }

    fn path(&self, key: &SessionKey) -> PathBuf {
        self.directory.join(key.digest().to_hex()).with_extension("session")
    }
}

/// A log, or a tombstone, which is a log without records.
#[derive(Serialize, Deserialize)]
struct Session {
    namespace: String,
    principal: String,
    id: String,
    /// Random for each log: a cursor of a log that was deleted or has expired is of another epoch.
    epoch: [u8; 16],
    /// Whether a deletion came before it. Then what was built on "no such session" is no part of it.
    deleted: bool,
    /// The number of records that were ever appended.
    count: u64,
    /// The number of these that are kept no more.
    trimmed: u64,
    /// Ids of the newest of these, so that a late retry of one is recognised.
    forgotten: Vec<RecordId>,
    created: SystemTime,
    updated: SystemTime,
    /// `None`: never.
    expires: Option<SystemTime>,
    model: Option<String>,
    title: Option<String>,
    /// Bytes of each record.
    sizes: Vec<usize>,
    /// Empty where only the head was read.
    #[serde(skip)]
    records: Vec<Record>,
}

impl Session {
    fn new(key: &SessionKey) -> Self {
        let now = SystemTime::now();
        Self {
            namespace: key.namespace().to_owned(),
            principal: key.principal().as_str().to_owned(),
            id: key.id().as_str().to_owned(),
            epoch: *Epoch::random().as_bytes(),
            deleted: false,
            count: 0,
            trimmed: 0,
            forgotten: Vec::new(),
            created: now,
            updated: now,
            expires: None,
            model: None,
            title: None,
            sizes: Vec::new(),
            records: Vec::new(),
        }
    }

    fn tombstone(key: &SessionKey, retention: &Retention) -> Self {
        let expires = SystemTime::now().checked_add(retention.tombstone_ttl);
        Self { deleted: true, expires, ..Self::new(key) }
    }

    fn push(&mut self, record: Record, retention: &Retention) {
        self.updated = SystemTime::now();
        self.expires = self.updated.checked_add(retention.ttl);
        if self.count == 0 {
            self.created = self.updated;
        }
        if let Some(turn) = record.turn() {
            self.model = turn.model().map(str::to_owned).or(self.model.take());
            self.title = turn.title().map(str::to_owned).or(self.title.take());
        }
        self.count += 1;
        self.sizes.push(record.bytes().len());
        self.records.push(record);

        let excess = retention.excess(&self.records);
        self.trimmed += excess as u64;
        self.sizes.drain(..excess);
        self.forgotten.extend(self.records.drain(..excess).map(|record| record.id()));
        self.forgotten.drain(..self.forgotten.len().saturating_sub(Retention::REMEMBERED));
    }

    fn cursor(&self) -> Cursor {
        let epoch = Epoch::from_bytes(self.epoch);
        Cursor { epoch, count: self.count, newest: self.records.last().map(Record::id) }
    }

    /// The number of records that are kept and stand before this place; `None` for a place that is not in this log.
    fn behind(&self, at: &Cursor) -> Option<usize> {
        let kept = usize::try_from(at.count.checked_sub(self.trimmed)?).ok()?;
        let newest = self.records.get(..kept)?.last().map(Record::id);
        (*at.epoch.as_bytes() == self.epoch && at.newest == newest).then_some(kept)
    }

    /// Whether a record that was built on this place may join the log. First turns that race were both built on "no such
    /// session", and share one log.
    fn accepts(&self, at: &Cursor) -> bool {
        *at.epoch.as_bytes() == self.epoch || (at.epoch == Epoch::UNBORN && !self.deleted)
    }

    fn has(&self, id: RecordId) -> bool {
        self.records.iter().any(|record| record.id() == id)
    }

    fn has_expired(&self) -> bool {
        self.expires.is_some_and(|expires| expires <= SystemTime::now())
    }

    fn is_of(&self, scope: &Scope) -> bool {
        self.namespace == scope.namespace && self.principal == scope.principal.as_str()
    }

    fn bytes(&self) -> u64 {
        self.sizes.iter().map(|size| *size as u64).sum()
    }

    fn key(&self) -> Result<SessionKey, StoreError> {
        let id = self.id.parse().map_err(corrupt)?;
        Ok(SessionKey::new(self.namespace.as_str(), Principal::new(self.principal.as_str()), id))
    }

    fn summary(self) -> Result<SessionSummary, StoreError> {
        let mut summary = SessionSummary::new(self.id.parse().map_err(corrupt)?);
        summary.turns = self.sizes.len() as u64;
        summary.bytes = self.bytes();
        summary.created_at = self.created;
        summary.updated_at = self.updated;
        summary.expires_at = self.expires;
        summary.model = self.model;
        summary.title = self.title;
        Ok(summary)
    }
}

/// The head of a session's file, and the file behind it; `None` if there is no file.
fn open(path: &Path) -> Result<Option<(Session, BufReader<File>)>, StoreError> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => BufReader::new(file.map_err(unavailable)?),
    };
    let mut head = Vec::new();
    file.read_until(b'\n', &mut head).map_err(unavailable)?;
    Ok(Some((serde_json::from_slice(&head).map_err(corrupt)?, file)))
}

/// Sorts by time, the newest first, and leaves the entries of this page. Answers what names the next one: the time of its
/// last entry. Changes are made one after the other, so no two have the same, unless the
/// clock was set back: a store for more than an example counts them.
fn cut<T>(
    listed: &mut Vec<T>,
    page: &Page,
    time: impl Fn(&T) -> SystemTime,
) -> Result<Option<String>, StoreError> {
    let nanos =
        |entry: &T| time(entry).duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_nanos());
    if let Some(after) = &page.after {
        let after: u128 = after.parse().map_err(|_| StoreError::new(StoreErrorKind::Other))?;
        listed.retain(|entry| nanos(entry) < after);
    }
    listed.sort_by_key(|entry| std::cmp::Reverse(nanos(entry)));
    let more = listed.len() > page.size();
    listed.truncate(page.size());
    Ok(listed.last().filter(|_| more).map(|last| nanos(last).to_string()))
}

/// Nothing was done, and a later call may succeed.
fn unavailable(error: io::Error) -> StoreError {
    StoreError::with_source(StoreErrorKind::Unavailable, error)
}

/// Whether it was done is unknown: the caller sends the same record again.
fn unknown(error: io::Error) -> StoreError {
    StoreError::with_source(StoreErrorKind::Timeout, error)
}

fn corrupt(error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::with_source(StoreErrorKind::Corrupt, error)
}
