//! One session, two formats: turns are replayed in their own format, or through the translation that the request's
//! format offers; never spliced as something that they are not.

use std::sync::Arc;

use crate::{
    config::Config,
    history::{Format, Item, Log, Record, Turn, TurnParts},
    protocol::Protocol,
    session::SessionKey,
};

/// Reason why a conversation cannot be replayed in the request's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Foreign {
    /// It is in a format that no protocol of the layer speaks.
    Unknown(Format),
    /// It is in a format of ours that the request's offers no translation of.
    Untranslatable,
}

/// The log as the request's format can replay it: as it is, if its path has no other format; else that path alone,
/// translated.
pub(super) fn in_format(
    log: Arc<Log>,
    protocol: &dyn Protocol,
    config: &Config,
    key: &SessionKey,
) -> Result<Arc<Log>, Foreign> {
    let own = protocol.format();
    if log.has_only(own) {
        return Ok(log);
    }
    let path = log.path();
    if let Some(unknown) = path.formats().find(|format| !config.speaks(*format)) {
        return Err(Foreign::Unknown(unknown));
    }
    if path.formats().all(|format| format == own) {
        return Ok(log);
    }
    let translated: Option<Log> = path.turns().map(|turn| translated(turn, protocol, key)).collect();
    translated.map(Arc::new).ok_or(Foreign::Untranslatable)
}

/// The same turn in this format, item by item, so that places in it stay what they are.
fn translated(turn: Turn<'_>, protocol: &dyn Protocol, key: &SessionKey) -> Option<Record> {
    let (from, to) = (turn.format(), protocol.format());
    if from == to {
        return Some(turn.record().clone());
    }
    let all = |items: &mut dyn Iterator<Item = Item>| -> Option<Vec<Item>> {
        items.map(|item| protocol.translate(&item, from)).collect()
    };
    let mut sent = all(&mut turn.items())?;
    let reply = sent.split_off(turn.sent());
    let mut parts = TurnParts::new(to, sent, reply);
    parts.id = turn.id();
    parts.parent = turn.record().parent();
    parts.at = turn.record().at();
    parts.state = turn.state();
    parts.instructions = all(&mut turn.instructions())?;
    Some(parts.into_record(key))
}
