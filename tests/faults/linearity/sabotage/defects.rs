//! The Redis store with one thing done wrong around it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use tower_session_memory::{
    history::{Item, Parent, Record, RecordId, TurnParts},
    session::{Principal, SessionKey},
    store::{Appended, Cursor, HistoryStore, LoadOptions, Loaded, RedisStore, StoreError},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// A cursor is how many turns there were, whichever these were.
    IntegerCursor,
    /// The end goes out, and what was said is stored afterwards.
    CommitsLater,
    /// The id of a session opens it for every principal.
    KeyWithoutPrincipal,
    /// A kept log is forgotten only when this replica adds to it.
    StaleCache,
    /// A turn that is sent again is another turn.
    NewIdEachTime,
    /// Decryption works block by block, and leaves out what fills no block.
    TruncatesDecryption,
    /// A turn whose session was deleted meanwhile is added to the session that is there now.
    IgnoresEpoch,
}

pub struct Defective {
    inner: Arc<RedisStore>,
    defect: Defect,
    kept: Mutex<HashMap<SessionKey, Loaded>>,
}

impl Defective {
    pub async fn over(url: String, defect: Defect) -> Self {
        let inner = Arc::new(redis(url).await);
        Self { inner, defect, kept: Mutex::default() }
    }

    async fn load_after_number(
        &self,
        key: &SessionKey,
        after: Option<&Cursor>,
    ) -> Result<Loaded, StoreError> {
        let whole = self.inner.load(key, None).await?;
        let known = after.and_then(|after| usize::try_from(after.count).ok());
        Ok(match known.filter(|known| *known <= whole.records.len()) {
            Some(known) => Loaded::since(whole.cursor, whole.records[known..].to_vec(), whole.trimmed),
            None => whole,
        })
    }

    async fn load_kept(&self, key: &SessionKey) -> Result<Loaded, StoreError> {
        let kept = self.kept.lock().unwrap().get(key).cloned();
        if let Some(kept) = kept {
            return Ok(kept);
        }
        let loaded = self.inner.load(key, None).await?;
        if !loaded.records.is_empty() {
            self.kept.lock().unwrap().insert(key.clone(), loaded.clone());
        }
        Ok(loaded)
    }

    fn append_later(&self, key: &SessionKey, at: &Cursor, turn: &Record) -> Appended {
        let (inner, key, at, turn) = (Arc::clone(&self.inner), key.clone(), *at, turn.clone());
        let cursor = Cursor { count: at.count + 1, newest: Some(turn.id()), ..at };
        #[expect(clippy::disallowed_methods, reason = "nobody waits for it: that is the defect")]
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            while inner.append(&key, &at, &turn).await.is_err_and(|error| error.is_transient()) {}
        });
        Appended::Appended { cursor, before: None }
    }
}

impl HistoryStore for Defective {
    async fn load(
        &self,
        key: &SessionKey,
        options: impl Into<LoadOptions> + Send,
    ) -> Result<Loaded, StoreError> {
        let after = options.into().after;
        let after = after.as_ref();
        match self.defect {
            Defect::IntegerCursor => self.load_after_number(key, after).await,
            Defect::KeyWithoutPrincipal => self.inner.load(&everybodys(key), after).await,
            Defect::StaleCache => self.load_kept(key).await,
            Defect::TruncatesDecryption => {
                let mut loaded = self.inner.load(key, after).await?;
                for turn in loaded.records.to_mut() {
                    *turn = remade(turn, key, turn.id(), turn.parent(), opened);
                }
                Ok(loaded)
            }
            Defect::CommitsLater | Defect::NewIdEachTime | Defect::IgnoresEpoch => {
                self.inner.load(key, after).await
            }
        }
    }

    async fn append(&self, key: &SessionKey, at: &Cursor, turn: &Record) -> Result<Appended, StoreError> {
        match self.defect {
            Defect::IntegerCursor => self.inner.append(key, at, turn).await,
            Defect::CommitsLater => Ok(self.append_later(key, at, turn)),
            Defect::KeyWithoutPrincipal => {
                let key = everybodys(key);
                let turn = remade(turn, &key, turn.id(), turn.parent(), Bytes::clone);
                self.inner.append(&key, at, &turn).await
            }
            Defect::StaleCache => {
                self.kept.lock().unwrap().remove(key);
                self.inner.append(key, at, turn).await
            }
            Defect::NewIdEachTime => {
                let another = remade(turn, key, RecordId::new(), turn.parent(), Bytes::clone);
                self.inner.append(key, at, &another).await
            }
            Defect::TruncatesDecryption => {
                let sealed = remade(turn, key, turn.id(), turn.parent(), sealed);
                self.inner.append(key, at, &sealed).await
            }
            Defect::IgnoresEpoch => match self.inner.append(key, at, turn).await? {
                Appended::Gone => {
                    let now = self.inner.load(key, None).await?.cursor;
                    let anyway = remade(turn, key, turn.id(), Parent::Previous, Bytes::clone);
                    self.inner.append(key, &now, &anyway).await
                }
                appended => Ok(appended),
            },
        }
    }

    async fn delete(&self, key: &SessionKey) -> Result<(), StoreError> {
        match self.defect {
            Defect::KeyWithoutPrincipal => self.inner.delete(&everybodys(key)).await,
            _ => self.inner.delete(key).await,
        }
    }

    fn name(&self) -> &'static str {
        "defective"
    }

    tower_session_memory::delegate_history_store!(
        |this| this.inner;
        read, sessions, principals, delete_principal, expire, durability, close
    );
}

fn everybodys(key: &SessionKey) -> SessionKey {
    SessionKey::new(key.namespace(), Principal::new("everybody"), key.id().clone())
}

const BLOCK: usize = 16;

fn sealed(raw: &Bytes) -> Bytes {
    raw.iter().map(|byte| byte ^ 0x5a).collect()
}

fn opened(raw: &Bytes) -> Bytes {
    raw.chunks_exact(BLOCK).flatten().map(|byte| byte ^ 0x5a).collect()
}

/// The turn with another id, another parent, or other bytes in its messages.
fn remade(
    turn: &Record,
    key: &SessionKey,
    id: RecordId,
    parent: Parent,
    change: impl Fn(&Bytes) -> Bytes,
) -> Record {
    let changed = |message: Item| Item::new(change(message.raw()), message.about().clone());
    let at = turn.at();
    let turn = turn.turn().unwrap();
    let mut sent: Vec<Item> = turn.items().map(changed).collect();
    let reply = sent.split_off(turn.sent());
    let mut parts = TurnParts::new(turn.format(), sent, reply);
    parts.id = id;
    parts.parent = parent;
    parts.at = at;
    parts.instructions = turn.instructions().collect();
    parts.state = turn.state();
    parts.finish_reason = turn.finish_reason().map(str::to_owned);
    parts.model = turn.model().map(str::to_owned);
    parts.usage = turn.usage().map(ToOwned::to_owned);
    parts.into_record(key)
}

/// The right store.
pub async fn redis(url: String) -> RedisStore {
    RedisStore::builder(url).open().await.unwrap()
}
