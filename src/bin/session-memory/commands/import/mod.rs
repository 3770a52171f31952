//! `import`: takes over the conversations that LangChain or the OpenAI Agents SDK kept.
//!
//! The story is: open both ends → list the source's sessions → for each: read its entries (`source`), understand them
//! (`langchain`, `agents`), make turns (`turns`), write the missing ones (`write`) → report.
//!
//! - **Once.** A turn's id is made from the source's entries. An import that is repeated, killed in the middle or run
//!   twice at once stores each turn once; a later one adds the turns that have come since.
//! - **Never mixed.** Turns are only added to a session that is empty, or that holds the beginning of the same
//!   conversation. A session that went on in the store keeps its own turns.
//! - **Nothing in silence.** What cannot be read is named, and the rest of its session is imported.

mod agents;
mod arguments;
mod chat;
mod contents;
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
mod source_url;
mod sqlite;
#[cfg(test)]
mod tests;
mod turns;
mod write;

use std::{process::ExitCode, sync::Arc};

use clap::ArgMatches;
use futures_util::{StreamExt, stream};
use tower_session_memory::{
    history::Record,
    session::{Principal, SessionId, SessionKey},
    store::DynHistoryStore,
};

pub(super) use self::arguments::command;
use self::{
    arguments::Order,
    contents::{Location, Sessions},
    report::{Outcome, Report, Skipped, shown},
    source::Source,
    write::{Patience, write},
};
use super::flags::{environment, read};
use crate::{
    build,
    error::BoxError,
    settings::{Secrets, Settings, StoreUrl},
};

/// Four sessions are imported side by side.
const AT_ONCE: usize = 4;

/// Imports.
///
/// # Errors
///
/// When the settings are wrong, or the source or the store cannot be opened, or fails. Turns that were imported by then
/// stay, and the same import goes on from there.
pub(super) fn run(flags: &ArgMatches) -> Result<ExitCode, BoxError> {
    let settings = read(flags)?;
    build::install_log(&settings)?;
    let secrets = Secrets::load(&settings, &environment)?;
    secrets.fit(&settings)?;
    import(&settings, &secrets, &Order::read(flags)?)
}

fn import(settings: &Settings, secrets: &Secrets, order: &Order) -> Result<ExitCode, BoxError> {
    if matches!(settings.store, StoreUrl::Memory) {
        return Err("the store `memory` forgets when this command ends".into());
    }
    let owner = owner::principal(settings, secrets, order.owner.as_ref(), order.anonymous)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let source = Source::open(&order.from).await?;
        let sessions = chosen(source.sessions().await?, &order.only)?;
        let store = build::open(settings, secrets, None).await?;
        let opened = Arc::clone(&store);
        let import = Import { settings, owner, source, store, dry_run: order.dry_run };
        let mut report = Report::default();
        let done = import.all(sessions, &mut report).await;
        opened.close_dyn().await;
        report.print(order.dry_run);
        done.map(|()| report.code())
    })
}

/// The sessions named by `--session`; all if none is.
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
            .map(|(id, location)| async move {
                let outcome = self.one(&id, location.as_ref()).await;
                (id, outcome)
            })
            .buffer_unordered(AT_ONCE);
        while let Some((id, outcome)) = outcomes.next().await {
            report.take(&shown(&String::from_utf8_lossy(&id)), &outcome?);
        }
        Ok(())
    }

    async fn one(&self, id: &[u8], location: Option<&Location>) -> Result<Outcome, BoxError> {
        let id = match SessionId::from_bytes(id) {
            Ok(id) => id,
            Err(why) => return Ok(Outcome::skipped(Skipped::Id(why))),
        };
        let Some(location) = location else { return Ok(Outcome::skipped(Skipped::Twice)) };
        let session = match self.source.read(id.as_str(), location).await? {
            Ok(session) => session,
            Err(why) => return Ok(Outcome::skipped(why)),
        };
        let transcript = match self.source.understand(&session.entries) {
            Ok(transcript) => transcript,
            Err(why) => return Ok(Outcome::skipped(why)),
        };
        let key = SessionKey::new(self.settings.namespace.as_str(), self.owner.clone(), id);
        let turns = match turns::build(self.source.kind(), &key, &session.entries, transcript.pieces) {
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
        outcome.left = [session.left, transcript.left, turns.left].concat();
        outcome.left.sort_by_key(|(at, _)| *at);
        Ok(outcome)
    }
}
