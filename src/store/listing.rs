use std::time::SystemTime;

use crate::session::{Principal, SessionId, SessionKey};

/// One principal's sessions in one namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope {
    /// The deployment or tenant.
    pub namespace: String,
    /// The principal.
    pub principal: Principal,
}

impl Scope {
    /// The scope that a session is listed in.
    #[must_use]
    pub fn of(key: &SessionKey) -> Self {
        Self { namespace: key.namespace().to_owned(), principal: key.principal().clone() }
    }
}

/// One step of a listing or an erasure.
///
/// ```
/// use tower_session_memory::store::Page;
///
/// let first = Page::new(100);
/// let second = first.clone().with_after("what the first page named as its next".to_owned());
/// # let _ = second;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page {
    /// The largest number of entries; 1 to 1,000.
    pub limit: usize,
    /// The `next` of the page before; `None` for the first page.
    pub after: Option<String>,
}

impl Page {
    /// The first page, of at most this number of entries. Numbers outside of 1 to 1,000 count as the nearest of these.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, after: None }
    }

    /// The page after the one that named this `next`; the first for `None`.
    #[must_use]
    pub fn with_after(mut self, next: impl Into<Option<String>>) -> Self {
        self.after = next.into();
        self
    }

    /// The limit, within its bounds.
    #[must_use]
    pub fn size(&self) -> usize {
        self.limit.clamp(1, 1000)
    }
}

/// One page of a principal's sessions.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SessionPage {
    /// The sessions, the most recently appended to first.
    pub sessions: Vec<SessionSummary>,
    /// What [`Page::after`] takes to go on; opaque. `None` on the last page.
    pub next: Option<String>,
}

/// What a listing says of a session. Times are the store's.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionSummary {
    /// Its id.
    pub id: SessionId,
    /// The number of turns that its log holds.
    pub turns: u64,
    /// The bytes of the records that its log holds.
    pub bytes: u64,
    /// When its first turn was appended.
    pub created_at: SystemTime,
    /// When its newest turn was appended.
    pub updated_at: SystemTime,
    /// When it expires, unless it is appended to; `None`: never.
    pub expires_at: Option<SystemTime>,
    /// The model that its newest record names, of those that name one.
    pub model: Option<String>,
    /// The title that its newest record gives, of those that give one.
    pub title: Option<String>,
}

impl SessionSummary {
    /// A session of no size and unknown age, for stores to fill in.
    #[must_use]
    pub fn new(id: SessionId) -> Self {
        Self {
            id,
            turns: 0,
            bytes: 0,
            created_at: SystemTime::UNIX_EPOCH,
            updated_at: SystemTime::UNIX_EPOCH,
            expires_at: None,
            model: None,
            title: None,
        }
    }
}

/// One page of a namespace's principals.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct PrincipalPage {
    /// The principals, the most recently active first.
    pub principals: Vec<PrincipalSummary>,
    /// What [`Page::after`] takes to go on; opaque. `None` on the last page.
    pub next: Option<String>,
}

/// What a listing says of a principal.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PrincipalSummary {
    /// The principal.
    pub principal: Principal,
    /// When a turn was last appended to a session of it, by the store's clock.
    pub updated_at: SystemTime,
}

impl PrincipalSummary {
    /// A principal and its newest turn's time.
    #[must_use]
    pub fn new(principal: Principal, updated_at: SystemTime) -> Self {
        Self { principal, updated_at }
    }
}
