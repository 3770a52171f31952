//! Recording a reply that comes as server-sent events.

use std::{fmt, ops::ControlFlow};

use super::{
    assembly::{Assembly, is_zero},
    envelope::{Choice, Envelope},
    repeated_event::RepeatedEvent,
};
use crate::protocol::json::text;
use crate::protocol::{
    Recorder, Reply, ReplyLimits, Skip,
    sse::{Parser, SseItem},
};

/// What the last line of a stream says, and nothing that is JSON begins with. Clients differ in how exact they
/// are about what follows it.
const DONE: &[u8] = b"[DONE]";

/// Assembles the message of choice 0 from a stream of `chat.completion.chunk`s.
///
/// A stream that failed stays failed: nothing of it is kept, later bytes are not read, and no line of it is
/// terminal, since there is nothing to store before it.
pub(super) struct StreamReply {
    parser: Parser,
    state: Result<Assembly, Skip>,
    around: RepeatedEvent,
    accept_done: bool,
    done: bool,
}

impl StreamReply {
    pub(super) fn new(limits: ReplyLimits, accept_done: bool) -> Self {
        Self {
            parser: Parser::new(limits.event),
            state: Ok(Assembly::new(limits.reply)),
            around: RepeatedEvent::default(),
            accept_done,
            done: false,
        }
    }

    fn fail(&mut self, skip: Skip) {
        self.state = Err(skip);
        self.parser = Parser::new(0);
        self.around = RepeatedEvent::default();
    }
}

impl Recorder for StreamReply {
    fn feed(&mut self, bytes: &[u8]) -> Option<usize> {
        let (Ok(assembly), around) = (&mut self.state, &mut self.around) else { return None };
        if self.done {
            return None;
        }
        let mut terminal = None;
        let mut failed = None;
        let fed = self.parser.feed(bytes, |item| match take(assembly, around, item) {
            Ok(None) => ControlFlow::Continue(()),
            Ok(at) => {
                terminal = at;
                ControlFlow::Break(())
            }
            Err(skip) => {
                failed = Some(skip);
                ControlFlow::Break(())
            }
        });
        if let Some(skip) = failed.or(fed.is_err().then_some(Skip::TooLarge)) {
            self.fail(skip);
        }
        self.done = terminal.is_some();
        terminal
    }

    fn is_finished(&self) -> bool {
        let Ok(assembly) = &self.state else { return false };
        assembly.outcome.finish_reason.is_some() || (self.done && self.accept_done)
    }

    fn finish(&mut self) -> Result<Reply, Skip> {
        let finished = self.is_finished();
        let assembly = self.state.as_mut().map_err(|skip| *skip)?;
        if finished { assembly.finish() } else { Err(Skip::NoFinishReason) }
    }

    fn interrupt(&mut self) -> Result<Reply, Skip> {
        if self.is_finished() {
            return self.finish();
        }
        self.state.as_mut().map_err(|skip| *skip)?.interrupt()
    }
}

impl fmt::Debug for StreamReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamReply")
            .field("finished", &self.is_finished())
            .field("skip", &self.state.as_ref().err())
            .finish_non_exhaustive()
    }
}

/// Takes what the parser found; answers where the terminal line starts, if this is it.
fn take(
    assembly: &mut Assembly,
    around: &mut RepeatedEvent,
    item: SseItem<'_>,
) -> Result<Option<usize>, Skip> {
    match item {
        SseItem::Opens { data, at } if data.trim_ascii_start().starts_with(DONE) => return Ok(Some(at)),
        // llama.cpp before September 2025 sent errors as a field of this name.
        SseItem::Unknown { name: b"error" } | SseItem::Event { name: b"error", .. } => {
            return Err(Skip::ErrorFrame);
        }
        // As the official clients do: a byte that is no text costs that character, not the reply.
        SseItem::Event { data, .. } => chunk(assembly, around, String::from_utf8_lossy(data).trim_ascii())?,
        SseItem::Opens { .. } | SseItem::Unknown { .. } => {}
    }
    Ok(None)
}

fn chunk(assembly: &mut Assembly, around: &mut RepeatedEvent, json: &str) -> Result<(), Skip> {
    if let Some(text) = around.text(json)
        && assembly.merge_text(text)?
    {
        return Ok(());
    }
    around.clear();
    if !text::is_object(json) {
        return if json.is_empty() || text::is_json(json) { Ok(()) } else { Err(Skip::Unparseable) };
    }
    let chunk = Envelope::read(json, "delta").ok_or(Skip::Unparseable)?;
    let Envelope { error, model, usage, choices } = chunk;
    if error.is_some_and(text::is_truthy) {
        return Err(Skip::ErrorFrame);
    }
    assembly.outcome.read(model, usage);
    let choices = choices.ok_or(Skip::Unparseable)?;
    let alone = choices.len() == 1;
    for choice in choices {
        let Choice { index, finish_reason, said } = choice.ok_or(Skip::Unparseable)?;
        if !is_zero(index) {
            continue;
        }
        assembly.outcome.read_finish_reason(finish_reason)?;
        if let Some(delta) = said.members()?
            && let Some(text) = assembly.merge(&delta)?.filter(|_| alone)
        {
            around.set(json, text);
        }
    }
    Ok(())
}
