//! The assistant message that a stream's deltas add up to.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::{
    budget::{Budget, Full},
    details::Details,
    fields::{Fields, Join, Parts, trim_cut},
    tool_body::Body,
    tool_calls::{self, ToolCalls},
};
use crate::protocol::json::{
    members::{Member, Members},
    text::{self, Object},
};
use crate::{
    history::{About, Author, Item},
    protocol::{Reply, Skip},
};

/// Members of a message that are not sent back: providers refuse them, or they only cost context.
pub(super) const DROPPED: [&str; 6] =
    ["annotations", "citations", "search_results", "executed_tools", "parsed", "obfuscation"];

/// Strings that grow delta by delta.
const TEXTS: [&str; 5] = ["refusal", "reasoning_content", "reasoning", "reasoning_text", "thinking"];

/// What choice 0 has said so far, with what the chunks tell around it.
pub(super) struct Assembly {
    pub(super) outcome: Outcome,
    role: Option<String>,
    content: Content,
    fields: Fields,
    details: Details,
    function_call: Option<Body>,
    audio_id: Option<String>,
    calls: ToolCalls,
    budget: Budget,
}

/// What a reply says beside its message.
#[derive(Clone, Default)]
pub(super) struct Outcome {
    pub(super) finish_reason: Option<String>,
    model: Option<String>,
    usage: Option<Box<RawValue>>,
}

#[derive(Default)]
enum Content {
    #[default]
    Absent,
    /// The inside of a string literal.
    Text(String),
    Parts(Parts),
}

impl Assembly {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            outcome: Outcome::default(),
            role: None,
            content: Content::default(),
            fields: Fields::default(),
            details: Details::default(),
            function_call: None,
            audio_id: None,
            calls: ToolCalls::default(),
            budget: Budget::new(limit),
        }
    }

    /// Takes a delta of choice 0. Answers the string literal that was added to the content, if nothing else was
    /// done that a second time would change anything.
    pub(super) fn merge<'d>(&mut self, delta: &Members<'d>) -> Result<Option<&'d str>, Skip> {
        let (mut text, mut only) = (None, true);
        for member in delta.0.iter().filter(|member| !text::is_null(member.value)) {
            self.merge_member(member)?;
            match &*member.name {
                "content" if text.is_none() && text::is_string(member.value) => text = Some(member.value),
                "role" => {}
                _ => only = false,
            }
        }
        Ok(text.filter(|_| only))
    }

    /// Takes the inside of a string literal that is added to the content; false if the content is no text.
    pub(super) fn merge_text(&mut self, more: &str) -> Result<bool, Skip> {
        let Content::Text(text) = &mut self.content else { return Ok(false) };
        self.budget.take(more.len())?;
        text.push_str(more);
        Ok(true)
    }

    /// The message of a reply that has ended by itself.
    pub(super) fn finish(&mut self) -> Result<Reply, Skip> {
        let reason = self.outcome.finish_reason.as_deref();
        if matches!(reason, Some("length" | "content_filter")) && self.has_incomplete_call() {
            return Err(Skip::IncompleteToolCall);
        }
        self.calls.drop_nameless();
        self.function_call.take_if(|call| !call.has_name());
        self.reply()
    }

    /// The message of a reply whose client left: text and thoughts as far as they came. A call stays only if it is
    /// certainly complete. Audio does not stay, since its id stands for the whole of it.
    pub(super) fn interrupt(&mut self) -> Result<Reply, Skip> {
        if let Content::Text(text) = &mut self.content {
            trim_cut(text);
        }
        if let Content::Parts(parts) = &mut self.content {
            parts.trim_cut();
        }
        self.fields.trim_cut();
        self.details.trim_cut();
        self.calls.drop_unfinished();
        self.function_call.take_if(|call| !call.is_certainly_whole());
        self.audio_id = None;
        self.reply()
    }

    fn merge_member(&mut self, member: &Member<'_>) -> Result<(), Skip> {
        let value = member.value;
        match &*member.name {
            "role" => self.role = text::said(Some(value)).map(str::to_owned).or(self.role.take()),
            "content" => self.content.merge(value, &mut self.budget)?,
            "tool_calls" => {
                for call in text::elements(value).ok_or(Skip::Unparseable)? {
                    self.calls.merge(call, &mut self.budget)?;
                }
            }
            "function_call" => {
                let call = self.function_call.get_or_insert_default();
                call.merge(value, &mut self.budget).ok_or(Skip::Unparseable)??;
            }
            "audio" => {
                let audio = Members::read(value);
                let id = audio.as_ref().and_then(|audio| audio.get("id")).and_then(tool_calls::id);
                self.audio_id = id.map(str::to_owned).or(self.audio_id.take());
            }
            "reasoning_details" if text::is_array(value) => {
                for block in text::elements(value).ok_or(Skip::Unparseable)? {
                    self.details.merge(block, &mut self.budget)?;
                }
            }
            name if DROPPED.contains(&name) => {}
            name => {
                let join = if TEXTS.contains(&name) { Join::Text } else { Join::List };
                self.fields.merge(member, join, &mut self.budget)?;
            }
        }
        Ok(())
    }

    fn has_incomplete_call(&self) -> bool {
        self.calls.any_incomplete() || self.function_call.as_ref().is_some_and(|call| !call.is_json())
    }

    fn reply(&mut self) -> Result<Reply, Skip> {
        if !self.says_something() {
            return Err(Skip::EmptyMessage);
        }
        self.calls.settle();
        let about = About::new(Author::Model).with_calls(self.calls.ids());
        let message = Item::new(Bytes::from(self.json()), about);
        Ok(self.outcome.clone().reply(message))
    }

    /// A thought alone is no answer: most upstreams refuse a message that holds nothing else.
    fn says_something(&self) -> bool {
        let content = match &self.content {
            Content::Absent => false,
            Content::Text(text) => !text.is_empty(),
            Content::Parts(parts) => parts.says_something(),
        };
        content || self.acts() || self.fields.says("refusal")
    }

    fn acts(&self) -> bool {
        !self.calls.is_empty() || self.function_call.is_some() || self.audio_id.is_some()
    }

    fn json(&self) -> String {
        let mut message = Object::default();
        message.member("\"role\"", self.role.as_deref().unwrap_or("\"assistant\""));
        match &self.content {
            Content::Text(text) if !(text.is_empty() && self.acts()) => message.text("\"content\"", text),
            Content::Absent | Content::Text(_) => message.member("\"content\"", "null"),
            Content::Parts(parts) => message.array("\"content\"", &parts.interior()),
        }
        self.fields.write(&mut message);
        if let Some(details) = self.details.interior() {
            message.array("\"reasoning_details\"", &details);
        }
        if let Some(call) = &self.function_call {
            message.member("\"function_call\"", &call.json(false));
        }
        if let Some(id) = &self.audio_id {
            message.member("\"audio\"", &format!("{{\"id\":{id}}}"));
        }
        if !self.calls.is_empty() {
            message.array("\"tool_calls\"", &self.calls.interior());
        }
        message.end()
    }
}

impl Content {
    fn merge(&mut self, value: &str, budget: &mut Budget) -> Result<(), Skip> {
        match self {
            Self::Parts(parts) if text::is_string(value) => parts.push_text(value, budget)?,
            _ if text::is_string(value) => {
                let more = text::interior(value);
                budget.take(more.len())?;
                match self {
                    Self::Text(text) => text.push_str(more),
                    _ => *self = Self::Text(more.to_owned()),
                }
            }
            _ => {
                for part in text::elements(value).ok_or(Skip::Unparseable)? {
                    self.parts(budget)?.push(part, budget)?;
                }
            }
        }
        Ok(())
    }

    /// The content as parts; text that came before becomes the first of them.
    fn parts(&mut self, budget: &mut Budget) -> Result<&mut Parts, Full> {
        if !matches!(self, Self::Parts(_)) {
            let mut parts = Parts::default();
            if let Self::Text(text) = self {
                parts.push_text(&format!("\"{text}\""), budget)?;
            }
            *self = Self::Parts(parts);
        }
        match self {
            Self::Parts(parts) => Ok(parts),
            Self::Absent | Self::Text(_) => Err(Full),
        }
    }
}

impl Outcome {
    /// Takes what a chunk or a whole reply tells at its top level.
    pub(super) fn read(&mut self, model: Option<&str>, usage: Option<&RawValue>) {
        if self.model.is_none() {
            self.model = text::said(model).map(text::decode_to_keep);
        }
        if let Some(usage) = usage.filter(|usage| text::is_object(usage.get())) {
            self.usage = Some(usage.to_owned());
        }
    }

    /// Takes a choice's `finish_reason`. An empty one counts as none: hosts exist that send it with every
    /// chunk, and the official clients ignore it.
    pub(super) fn read_finish_reason(&mut self, reason: Option<&str>) -> Result<(), Skip> {
        let Some(reason) = reason.filter(|reason| text::is_truthy(reason)).map(text::decode_to_keep) else {
            return Ok(());
        };
        if reason == "error" {
            return Err(Skip::ErrorFrame);
        }
        self.finish_reason = Some(reason);
        Ok(())
    }

    pub(super) fn reply(self, message: Item) -> Reply {
        let Self { finish_reason, model, usage } = self;
        Reply { items: vec![message], id: None, finish_reason, model, usage }
    }
}

/// Whether this is the index of choice 0; a choice without an index is.
pub(super) fn is_zero(index: Option<&str>) -> bool {
    match index {
        None | Some("null" | "0") => true,
        Some(index) => text::decode(index).trim().parse() == Ok(0),
    }
}

impl From<Full> for Skip {
    fn from(_: Full) -> Self {
        Self::TooLarge
    }
}
