//! Lists whose elements arrive in fragments: content parts and reasoning blocks.

use super::{
    budget::{Budget, Full},
    fields::{Fields, Join},
    raw::{self, Object},
};

/// Content as a list of parts (Mistral's thinking models): adjacent texts become one, adjacent thoughts, too.
#[derive(Default)]
pub(super) struct Parts(Vec<Part>);

struct Part {
    kind: String,
    fields: Fields,
}

impl Parts {
    /// Adds a part as it was sent.
    pub(super) fn push(&mut self, part: &str, budget: &mut Budget) -> Result<(), Full> {
        self.push_with(part, Join::Parts, budget)
    }

    /// Adds a part of a part. Its own parts are kept as they are: nobody nests deeper, and recursion has an
    /// end.
    pub(super) fn push_inner(&mut self, part: &str, budget: &mut Budget) -> Result<(), Full> {
        self.push_with(part, Join::List, budget)
    }

    fn push_with(&mut self, part: &str, thinking: Join, budget: &mut Budget) -> Result<(), Full> {
        let members = match raw::Members::read(part) {
            Some(members) => members.0,
            // A bare string stands for a text part.
            None if raw::is_string(part) => return self.push_text(part, budget),
            None => return Ok(()),
        };
        let kind = members.iter().rev().find(|member| member.name == "type").map(|m| raw::decode(m.value));
        let kind = kind.unwrap_or_default().into_owned();
        let merges = matches!(&*kind, "text" | "thinking");
        if !(merges && self.0.last().is_some_and(|last| last.kind == kind)) {
            budget.part()?;
            self.0.push(Part { kind: kind.clone(), fields: Fields::default() });
        }
        let Some(Part { fields, .. }) = self.0.last_mut() else { return Ok(()) };
        for member in &members {
            let join = match (&*kind, &*member.name) {
                ("text", "text") => Join::Text,
                ("thinking", "thinking") => thinking,
                _ => Join::Replace,
            };
            fields.merge(member, join, budget)?;
        }
        Ok(())
    }

    /// Adds text that came as a string.
    pub(super) fn push_text(&mut self, literal: &str, budget: &mut Budget) -> Result<(), Full> {
        if raw::interior(literal).is_empty() {
            return Ok(());
        }
        self.push(&format!(r#"{{"type":"text","text":{literal}}}"#), budget)
    }

    /// Whether anything but thoughts and empty text is among the parts.
    pub(super) fn says_something(&self) -> bool {
        self.0.iter().any(|part| match &*part.kind {
            "text" => part.fields.says("text"),
            "thinking" => false,
            _ => true,
        })
    }

    pub(super) fn trim_cut(&mut self) {
        for part in &mut self.0 {
            part.fields.trim_cut();
        }
    }

    /// The parts as JSON, joined by commas.
    pub(super) fn interior(&self) -> String {
        let mut joined = String::new();
        for part in &self.0 {
            if !joined.is_empty() {
                joined.push(',');
            }
            let mut object = Object::default();
            part.fields.write(&mut object);
            joined.push_str(&object.end());
        }
        joined
    }
}

/// OpenRouter's `reasoning_details`: fragments of one block share its index and type. The blocks must be sent
/// back unmodified and in order, so their nulls and indexes stay.
#[derive(Default)]
pub(super) struct Details(Vec<Detail>);

struct Detail {
    index: Option<String>,
    kind: Option<String>,
    fields: Fields,
}

impl Details {
    pub(super) fn merge(&mut self, block: &str, budget: &mut Budget) -> Result<(), Full> {
        let Some(members) = raw::Members::read(block) else { return Ok(()) };
        let value = |name| members.get(name).filter(|value| !raw::is_null(value));
        let (index, kind) = (value("index"), value("type"));
        let same = |old: &Detail| {
            old.index.as_deref() == index
                && (kind.is_none() || old.kind.is_none() || old.kind.as_deref() == kind)
        };
        // Blocks without an index can be many, so the search has a bound.
        let recent = self.0.len().saturating_sub(Budget::ENTRIES);
        let at = match index.and_then(|_| self.0[recent..].iter().rposition(same)) {
            Some(at) => recent + at,
            None => {
                budget.part()?;
                let (index, kind) = (index.map(str::to_owned), kind.map(str::to_owned));
                self.0.push(Detail { index, kind, fields: Fields::default() });
                self.0.len() - 1
            }
        };
        for member in &members.0 {
            let join = if matches!(&*member.name, "text" | "summary") { Join::Text } else { Join::Replace };
            self.0[at].fields.merge(member, join, budget)?;
        }
        Ok(())
    }

    pub(super) fn trim_cut(&mut self) {
        for detail in &mut self.0 {
            detail.fields.trim_cut();
        }
    }

    /// The blocks as JSON, joined by commas; `None` if there are none.
    pub(super) fn interior(&self) -> Option<String> {
        let objects = self.0.iter().map(|detail| {
            let mut object = Object::default();
            detail.fields.write(&mut object);
            object.end()
        });
        objects.reduce(|joined, object| joined + "," + &object)
    }
}
