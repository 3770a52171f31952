//! `import`: conversations that LangChain or the OpenAI Agents SDK kept, taken over into the store.
//!
//! The story is: open both ends → the source's sessions → each: read, understand, make turns, write what is
//! missing → say what was done.
//!
//! - **Once.** A turn's id is made from what the source holds, so an import that is repeated, killed in the
//!   middle or run twice at once stores each turn once, and a later one adds what has come since.
//! - **Never mixed.** Records are only added to a session that holds nothing else, or the beginning of the same
//!   conversation. One that went on here keeps what it has.
//! - **Nothing in silence.** What cannot be read is named, and the rest of its session is imported.

mod agents;
mod json;
mod langchain;
mod owner;
mod parts;
mod piece;
#[cfg(test)]
mod properties;
mod redis;
mod report;
mod source;
mod sqlite;
#[cfg(test)]
mod tests;
mod turns;
mod write;

use std::{process::ExitCode, sync::Arc};

use futures_util::{StreamExt, stream};
use secrecy::SecretString;
use tower_session_memory::{
    history::Record,
    session::{Principal, SessionId, SessionKey},
    store::DynHistoryStore,
};

pub(crate) use self::source::SourceUrl;
use self::{
    report::{Outcome, Report, Skipped, shown},
    source::{Place, Sessions, Source},
    write::{Patience, write},
};
use crate::{
    BoxError,
    config::Secrets,
    settings::{Settings, StoreUrl},
    store,
};

/// Sessions that are imported side by side.
const AT_ONCE: usize = 4;

/// What the command line says besides the settings.
pub(crate) struct Order {
    pub(crate) from: SourceUrl,
    /// The header that the sessions' clients send.
    pub(crate) owner: Option<SecretString>,
    /// Whether they send none.
    pub(crate) anonymous: bool,
    /// Only these sessions; all if there are none.
    pub(crate) only: Vec<String>,
    pub(crate) dry_run: bool,
}

/// Imports.
///
/// # Errors
///
/// When a source or a store cannot be opened, or fails. What is imported by then stays; the same import goes on
/// from there.
pub(crate) fn run(settings: &Settings, secrets: &Secrets, order: &Order) -> Result<ExitCode, BoxError> {
    if matches!(settings.store, StoreUrl::Memory) {
        return Err("the store `memory` forgets when this command ends".into());
    }
    let owner = owner::principal(settings, secrets, order.owner.as_ref(), order.anonymous)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let source = Source::open(&order.from).await?;
        let sessions = chosen(source.sessions().await?, &order.only)?;
        let opened = store::open(settings, secrets, None).await?;
        let store = Arc::clone(&opened.store);
        let import = Import { settings, owner, source, store, dry_run: order.dry_run };
        let mut report = Report::default();
        let done = import.all(sessions, &mut report).await;
        opened.close().await;
        report.print(order.dry_run);
        done.map(|()| report.code())
    })
}

/// Those of the sessions that are asked for; all if none is named.
fn chosen(mut sessions: Sessions, only: &[String]) -> Result<Sessions, BoxError> {
    if let Some(id) = only.iter().find(|id| !sessions.contains_key(id.as_bytes())) {
        return Err(format!("the source has no session {}", shown(id)).into());
    }
    if !only.is_empty() {
        sessions.retain(|id, _| only.iter().any(|only| only.as_bytes() == id));
    }
    Ok(sessions)
}

struct Import<'a> {
    settings: &'a Settings,
    owner: Principal,
    source: Source,
    store: Arc<dyn DynHistoryStore>,
    dry_run: bool,
}

impl Import<'_> {
    async fn all(&self, sessions: Sessions, report: &mut Report) -> Result<(), BoxError> {
        let mut outcomes = stream::iter(sessions)
            .map(|(id, place)| async move {
                let outcome = self.one(&id, place.as_ref()).await;
                (id, outcome)
            })
            .buffer_unordered(AT_ONCE);
        while let Some((id, outcome)) = outcomes.next().await {
            report.take(&shown(&String::from_utf8_lossy(&id)), &outcome?);
        }
        Ok(())
    }

    async fn one(&self, id: &[u8], place: Option<&Place>) -> Result<Outcome, BoxError> {
        let id = match SessionId::from_bytes(id) {
            Ok(id) => id,
            Err(why) => return Ok(Outcome::skipped(Skipped::Id(why))),
        };
        let Some(place) = place else { return Ok(Outcome::skipped(Skipped::Twice)) };
        let session = match self.source.read(id.as_str(), place).await? {
            Ok(session) => session,
            Err(why) => return Ok(Outcome::skipped(why)),
        };
        let said = match self.source.understand(&session.entries) {
            Ok(said) => said,
            Err(why) => return Ok(Outcome::skipped(why)),
        };
        let key = SessionKey::new(self.settings.namespace.as_str(), self.owner.clone(), id);
        let turns = match turns::build(self.source.kind(), &key, &session.entries, said.pieces) {
            Ok(turns) => turns,
            Err(why) => return Ok(Outcome::skipped(Skipped::Unreadable(why.to_string()))),
        };
        let limit = self.settings.max_history.as_u64();
        let sizes = turns.turns.iter().filter_map(Record::turn).map(|turn| turn.item_bytes().len());
        let largest = sizes.max().unwrap_or_default();
        if largest as u64 > limit {
            return Ok(Outcome::skipped(Skipped::LargeTurn { bytes: largest, limit }));
        }
        let patience = Patience { attempt: self.settings.append_attempt, retry: self.settings.append_retry };
        let mut outcome = write(&*self.store, &key, &turns.turns, self.dry_run, patience).await?;
        outcome.unanswered = turns.unanswered;
        outcome.left = [session.left, said.left, turns.left].concat();
        outcome.left.sort_by_key(|(at, _)| *at);
        Ok(outcome)
    }
}
