use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use tokio::runtime::Handle;

use super::encoding::{DecodeError, Decoder};
use crate::{
    commit::{AppendQueue, Commit, Commits, InFlight, Observers, Submitted},
    failpoint::{self, Point},
    history::{ClientCase, Item, Parent, TurnParts, TurnState},
    protocol::{Protocol, Recorder, Reply, ReplyKind, ReplyLimits, Skip},
    session::SessionKey,
    store::Cursor,
    telemetry,
    view::Recipe,
};

/// A reply being listened to, and the turn that it will complete.
pub(crate) struct Recording {
    pub(crate) turn: OpenTurn,
    pub(crate) protocol: Arc<dyn Protocol>,
    pub(crate) limits: ReplyLimits,
    /// A turn with more bytes of items is not recorded: it could never be sent again.
    pub(crate) max_turn: usize,
    /// For a reply that came compressed although identity was asked for.
    pub(crate) decoder: Option<Decoder>,
    pub(crate) commits: Commits,
    pub(crate) queue: AppendQueue,
    pub(crate) observers: Observers,
    pub(crate) runtime: Handle,
    pub(crate) listener: Listener,
    /// Held from the moment at which the reply could be complete, so that the session's next load waits for
    /// it although the client need not read to the end.
    pub(crate) in_flight: Option<InFlight>,
}

/// A turn without its reply.
pub(crate) struct OpenTurn {
    pub(crate) key: SessionKey,
    pub(crate) at: Cursor,
    pub(crate) parent: Parent,
    pub(crate) client: ClientCase,
    pub(crate) view: Recipe,
    pub(crate) attempt: Option<u32>,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) instructions: Vec<Item>,
    pub(crate) sent: Vec<Item>,
}

/// Consumer of the reply's bytes.
pub(crate) enum Listener {
    /// The first byte will tell JSON from an event stream, whatever the content type says.
    Undecided,
    Recorder(Box<dyn Recorder>),
    /// Recording has stopped; forwarding goes on.
    Deaf(Skip),
}

impl Recording {
    /// Listens to the next bytes. Answers the offset from which on they must wait for the commit.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Option<usize> {
        failpoint::hit(Point::MidStream);
        if let Listener::Deaf(_) = self.listener {
            return None;
        }
        // A fault of ours must never damage a reply.
        let terminal = catch_unwind(AssertUnwindSafe(|| self.hear(bytes))).unwrap_or_else(|_| {
            telemetry::recorder_panicked(&self.turn.key);
            self.listener = Listener::Deaf(Skip::Unparseable);
            None
        });
        // A reply whose terminal bytes are held is committed before the client sees its end. Any other finished reply
        // is announced here, so that the session's next load waits for its commit.
        if terminal.is_none() && self.in_flight.is_none() && self.is_finished() {
            self.in_flight = Some(self.commits.announce(self.turn.key.digest()));
        }
        terminal
    }

    /// Whether the reply could be complete as it is.
    pub(crate) fn is_finished(&self) -> bool {
        matches!(&self.listener, Listener::Recorder(recorder) if recorder.is_finished())
    }

    /// The reply has ended: stores the turn, if there is one.
    pub(crate) fn finish(mut self) -> Option<Submitted> {
        match self.conclude(|recorder| recorder.finish()) {
            Ok(reply) => self.submit(reply, TurnState::Complete),
            Err(skip) => {
                telemetry::skipped(&self.turn.key, skip);
                None
            }
        }
    }

    /// The client has left: stores what it was sent, if that can stand by itself.
    pub(crate) fn interrupt(mut self) {
        let state = if self.is_finished() { TurnState::Complete } else { TurnState::Interrupted };
        let reply = self.conclude(|recorder| recorder.interrupt());
        telemetry::disconnected(&self.turn.key, reply.is_ok());
        if let Ok(reply) = reply {
            drop(self.submit(reply, state));
        }
    }

    /// Takes bytes as they came.
    fn hear(&mut self, bytes: &[u8]) -> Option<usize> {
        let Some(decoder) = &mut self.decoder else { return self.listen(bytes) };
        match decoder.push(bytes) {
            // Where in the compressed bytes the terminal line begins is unknown: hold all of them.
            Ok(decoded) => self.listen(&decoded).map(|_| 0),
            Err(error) => {
                self.listener = Listener::Deaf(match error {
                    DecodeError::TooLarge | DecodeError::Bomb => Skip::TooLarge,
                    DecodeError::Corrupt => Skip::Unparseable,
                });
                None
            }
        }
    }

    /// Takes decoded bytes.
    fn listen(&mut self, bytes: &[u8]) -> Option<usize> {
        if let Listener::Undecided = self.listener {
            let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace())?;
            let kind = if *first == b'{' { ReplyKind::Json } else { ReplyKind::EventStream };
            self.listener = Listener::Recorder(self.protocol.recorder(kind, self.limits));
        }
        let Listener::Recorder(recorder) = &mut self.listener else { return None };
        recorder.feed(bytes)
    }

    fn conclude(&mut self, how: fn(&mut dyn Recorder) -> Result<Reply, Skip>) -> Result<Reply, Skip> {
        match &mut self.listener {
            Listener::Undecided => Err(Skip::EmptyMessage),
            Listener::Deaf(skip) => Err(*skip),
            Listener::Recorder(recorder) => catch_unwind(AssertUnwindSafe(|| how(&mut **recorder)))
                .unwrap_or_else(|_| {
                    telemetry::recorder_panicked(&self.turn.key);
                    Err(Skip::Unparseable)
                }),
        }
    }

    fn submit(self, reply: Reply, state: TurnState) -> Option<Submitted> {
        let OpenTurn { key, at, parent, client, view, attempt, idempotency_key, instructions, sent } =
            self.turn;
        let mut parts = TurnParts::new(self.protocol.format(), sent, reply.items);
        parts.parent = parent;
        parts.instructions = instructions;
        parts.state = state;
        parts.client = Some(client);
        parts.finish_reason = reply.finish_reason;
        parts.model = reply.model;
        parts.usage = reply.usage;
        parts.response_id = reply.id;
        parts.attempt = attempt;
        parts.idempotency_key = idempotency_key;
        parts.view = view.to_raw();
        let turn = parts.into_record(&key);
        if turn.turn().is_some_and(|turn| turn.item_bytes().len() > self.max_turn) {
            telemetry::skipped(&key, Skip::TooLarge);
            return None;
        }
        let commit = Commit { key, at, turn, queue: self.queue, observers: self.observers };
        Some(self.commits.submit(&self.runtime, commit, self.in_flight))
    }
}
