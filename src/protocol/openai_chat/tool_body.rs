//! What a tool call calls, with what: a name and arguments that arrive in fragments.

use super::{
    budget::{Budget, Full},
    fields::{Fields, Join},
};
use crate::protocol::json::{
    members::{Member, Members},
    nesting::Nesting,
    text::{self, Object},
};

/// What is called with what: the `function` or `custom` member of a call, or a `function_call`.
#[derive(Default)]
pub(super) struct Body {
    custom: bool,
    /// The inside of a string literal, as it was sent.
    name: String,
    /// The inside of a string literal: `arguments`, or `input` of a custom tool.
    input: String,
    nesting: Nesting,
    fields: Fields,
}

#[derive(Default)]
pub(super) struct BodyFragment<'a> {
    pub(super) custom: bool,
    pub(super) name: Option<&'a str>,
    pub(super) input: Option<&'a str>,
    others: Vec<Member<'a>>,
}

/// How far a fragment's name may differ from that of the call that it continues.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Names {
    Equal,
    /// The whole name again, longer.
    MayExtend,
    /// Or the next piece of it.
    MayComeInPieces,
}

impl Body {
    /// Takes the next value of a `function_call`; `None` if it is no object.
    pub(super) fn merge(&mut self, value: &str, budget: &mut Budget) -> Option<Result<(), Full>> {
        Some(self.merge_fragment(BodyFragment::read(value, false)?, budget))
    }

    pub(super) fn is_json(&self) -> bool {
        text::is_json(&text::decode_interior(&self.input))
    }

    /// Whether nothing can have been missing when the stream was cut. Only an object or array shows its end:
    /// empty arguments may be about to begin, a number may go on, and so may a custom tool's text.
    pub(super) fn is_certainly_whole(&self) -> bool {
        !self.custom && !self.name.is_empty() && self.nesting.is_closed() && self.is_json()
    }

    pub(super) fn is_custom(&self) -> bool {
        self.custom
    }

    /// Whether the arguments are an object or array that was opened and closed again.
    pub(super) fn is_closed(&self) -> bool {
        self.nesting.is_closed()
    }

    pub(super) fn has_name(&self) -> bool {
        !self.name.is_empty()
    }

    pub(super) fn json(&self, custom: bool) -> String {
        let mut body = Object::default();
        body.text("\"name\"", &self.name);
        match (custom, &*self.input) {
            (true, input) => body.text("\"input\"", input),
            // Tools without parameters: some hosts send nothing, none accepts it back.
            (false, "") => body.text("\"arguments\"", "{}"),
            (false, arguments) => body.text("\"arguments\"", arguments),
        }
        self.fields.write(&mut body);
        body.end()
    }

    /// Whether a fragment's name can belong to this call.
    pub(super) fn agrees(&self, new: &BodyFragment<'_>, names: Names) -> bool {
        let Some(name) = new.name else { return true };
        let (name, known) = (text::decode(name), text::decode_interior(&self.name));
        known.is_empty()
            || name == *known
            || (names >= Names::MayExtend && name.starts_with(&*known) && !self.nesting.is_closed())
            || (names == Names::MayComeInPieces && self.input.is_empty())
    }

    pub(super) fn merge_fragment(&mut self, new: BodyFragment<'_>, budget: &mut Budget) -> Result<(), Full> {
        self.custom |= new.custom;
        if let Some(name) = new.name {
            self.merge_name(name, budget)?;
        }
        match new.input {
            Some(input) if text::is_string(input) => {
                let more = text::interior(input);
                budget.take(more.len())?;
                self.input.push_str(more);
                self.nesting.feed_escaped(more);
            }
            // An object is not sent in pieces: it is all of the arguments.
            Some(input) => {
                let text = text::quoted(&text::compact(input));
                budget.take(text.len())?;
                self.input = text::interior(&text).to_owned();
                self.nesting = Nesting::default();
                self.nesting.feed_escaped(&self.input);
            }
            None => {}
        }
        merge_deep(&mut self.fields, &new.others, budget)
    }

    fn merge_name(&mut self, name: &str, budget: &mut Budget) -> Result<(), Full> {
        let (decoded, known) = (text::decode(name), text::decode_interior(&self.name));
        if decoded == *known {
            return Ok(());
        }
        // All of it is looked at with every piece, so all of it counts: that bounds the work, too.
        budget.take(self.name.len().saturating_add(name.len()))?;
        if decoded.starts_with(&*known) {
            self.name.clear();
        }
        self.name.push_str(text::interior(name));
        Ok(())
    }
}

impl<'a> BodyFragment<'a> {
    pub(super) fn read(json: &'a str, custom: bool) -> Option<Self> {
        let mut body = Self { custom, ..Self::default() };
        for member in Members::read(json)?.0 {
            match &*member.name {
                "name" => body.name = text::said(Some(member.value)),
                "arguments" | "input" if custom == (member.name == "input") => {
                    body.input = Some(member.value).filter(|value| !text::is_null(value));
                }
                _ if text::is_null(member.value) => {}
                _ => body.others.push(member),
            }
        }
        Some(body)
    }

    /// Whether the arguments begin an object or array.
    pub(super) fn opens_structure(&self) -> bool {
        let Some(input) = self.input else { return false };
        text::decode(input).trim_start().starts_with(['{', '['])
    }
}

/// Merges members whose names have no meaning here.
pub(super) fn merge_deep(fields: &mut Fields, new: &[Member<'_>], budget: &mut Budget) -> Result<(), Full> {
    new.iter().try_for_each(|member| fields.merge(member, Join::Deep, budget))
}
