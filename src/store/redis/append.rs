//! How a turn is appended: in most cases to a log that is as this process saw it last.
//!
//! Then all that the turn changes is worked out here, and the script compares and writes. Where the log is another by
//! now, or more is to be known than its header, the script that reads the log itself does it, in a second round trip.

use redis::Value;

use super::{
    Shared,
    error::{damaged, unexpected},
    hex::hex,
    layout::{CREATED, HEAD, LogHeader, TIME, frame_of, head_line, turn_id},
    log_ends::{HeaderRest, LogEnd},
    millis, read,
    script::{self, Invocation},
};
use crate::{
    history::{Parent, Record},
    session::SessionKey,
    store::{Appended, Cursor, Epoch, StoreError, trim},
};

/// A log as it is known, and as the next turn makes it.
struct Next {
    /// The header's line as it is; empty for no log.
    known: Vec<u8>,
    /// How long the log is, in bytes.
    size: usize,
    header: Vec<u8>,
    frame: Vec<u8>,
    cursor: Cursor,
    /// What else the header says; nothing for no log.
    rest: Option<HeaderRest>,
}

impl Next {
    fn of_none(key: &SessionKey, turn: &Record) -> Self {
        let cursor = Cursor { epoch: Epoch::random(), count: 1, newest: Some(turn.id()) };
        let log = HeaderRest {
            fresh: true,
            trimmed: 0,
            at: 0,
            created: 0,
            ids: 0,
            first: HEAD,
            opened: HEAD,
            model: 0,
            title: 0,
        };
        let rest = log.with(turn, HEAD);
        let header = head_line(key.digest(), &cursor, &rest, HEAD);
        Self { known: Vec::new(), size: 0, header, frame: frame_of(turn, 0), cursor, rest: None }
    }

    fn of(key: &SessionKey, at: &Cursor, turn: &Record, end: LogEnd, rest: &HeaderRest) -> Self {
        let cursor = Cursor { count: at.count + 1, newest: Some(turn.id()), ..*at };
        let next = rest.with(turn, end.end);
        Self {
            known: head_line(key.digest(), at, rest, end.last),
            size: end.end,
            header: head_line(key.digest(), &cursor, &next, end.end),
            frame: frame_of(turn, end.end - end.last),
            cursor,
            rest: Some(next),
        }
    }
}

impl HeaderRest {
    /// What the header says with one more turn, which begins there.
    fn with(self, turn: &Record, place: usize) -> Self {
        let (opens, model, title) =
            (trim::opens_exchange(turn), trim::model(turn).is_some(), trim::title(turn).is_some());
        Self {
            opened: if opens { place } else { self.opened },
            model: if model { place } else { self.model },
            title: if title { place } else { self.title },
            ..self
        }
    }
}

impl Shared {
    pub(super) async fn append(
        &self,
        key: &SessionKey,
        at: &Cursor,
        turn: &Record,
    ) -> Result<Appended, StoreError> {
        if let Some(next) = self.next(key, at, turn)
            && let Value::Int(time) = self.write(&self.adding(key, &next)).await?
        {
            let time = u64::try_from(time).map_err(|_| unexpected())?;
            if let Some(rest) = next.rest {
                let (last, end) = (next.size, next.size + next.frame.len());
                let end = LogEnd { head: HEAD, last, end, rest: Some(HeaderRest { at: time, ..rest }) };
                self.ends.put(turn.id(), end, at.newest);
            }
            self.list_apart(key, time).await;
            // The script has compared all of the header, and so it knows what stands before the turn.
            return Ok(Appended::Appended { cursor: next.cursor, before: at.newest });
        }
        let value = self.write(&self.appending(key, at, turn)).await?;
        if matches!(value, Value::Int(0)) {
            return Ok(Appended::Gone);
        }
        let (status, before, header): (u8, String, Vec<u8>) = read(value)?;
        let log = LogHeader::read(&header, key.digest()).map_err(damaged)?;
        self.list_apart(key, log.at).await;
        if status != 1 {
            return Ok(Appended::AlreadyThere(log.cursor));
        }
        let before = turn_id(&before).ok_or_else(unexpected)?;
        self.ends.put(turn.id(), log.end(turn.bytes().len()), before);
        Ok(Appended::Appended { cursor: log.cursor, before })
    }

    /// What a turn makes of the log at this cursor. `None` where only the log itself tells whether it may join, or
    /// where something is to be done besides.
    fn next(&self, key: &SessionKey, at: &Cursor, turn: &Record) -> Option<Next> {
        if self.replicas.is_some() {
            return None;
        }
        let Some(newest) = at.newest else {
            let unborn = at.epoch == Epoch::UNBORN && !matches!(turn.parent(), Parent::At(_));
            return unborn.then(|| Next::of_none(key, turn));
        };
        let end = self.ends.of(newest)?;
        let rest = end.rest?;
        let continues = match turn.parent() {
            Parent::Previous | Parent::Root => true,
            Parent::At(place) => place.turn == newest,
        };
        let kept = at.count.checked_sub(rest.trimmed)?;
        let frames = kept.saturating_mul(LogHeader::FRAME as u64 + 1);
        let bytes = (end.end.checked_sub(rest.first)? as u64).checked_sub(frames)?;
        let fits = !self.retention.is_exceeded_by(kept + 1, bytes + turn.bytes().len() as u64);
        // Ids grow with time: one that is higher than every other was never here.
        (continues && fits && turn.id() > newest).then(|| Next::of(key, at, turn, end, &rest))
    }

    fn adding(&self, key: &SessionKey, next: &Next) -> Invocation {
        Invocation::new(&script::NEXT, &self.written_keys(key))
            .arg(&next.known)
            .arg(next.size)
            .arg(&next.header[..TIME.start])
            .arg(&next.header[CREATED.end..])
            .arg(&next.frame)
            .arg(millis(self.retention.ttl))
            .arg(key.id().as_str())
            .arg(self.listed.get())
            .arg(self.sweeps())
            .arg(key.principal().as_str())
    }

    fn appending(&self, key: &SessionKey, at: &Cursor, turn: &Record) -> Invocation {
        let appending = Invocation::new(&script::APPEND, &self.written_keys(key))
            .arg(hex(key.digest().as_bytes()))
            .arg(hex(at.epoch.as_bytes()))
            .arg(hex(turn.id().as_bytes()));
        let appending = match turn.parent() {
            Parent::Previous | Parent::Root => appending.arg(""),
            Parent::At(place) => appending.arg(hex(place.turn.as_bytes())),
        };
        appending
            .arg(hex(Epoch::random().as_bytes()))
            .arg(millis(self.retention.ttl))
            .arg(self.retention.max_turns.map_or(0, |turns| turns.get()))
            .arg(self.retention.max_bytes.map_or(0, |bytes| bytes.max(1)))
            .arg(u8::from(trim::opens_exchange(turn)))
            .arg(u8::from(trim::model(turn).is_some()))
            .arg(u8::from(trim::title(turn).is_some()))
            .arg(&turn.bytes()[..])
            .arg(key.id().as_str())
            .arg(self.listed.get())
            .arg(self.sweeps())
            .arg(self.waits())
            .arg(key.principal().as_str())
    }

    /// In a Cluster the listing is elsewhere, and written in a step of its own.
    async fn list_apart(&self, key: &SessionKey, time: u64) {
        if self.in_cluster {
            tokio::join!(self.list(key, time), self.enlist(key, time));
        }
    }
}
