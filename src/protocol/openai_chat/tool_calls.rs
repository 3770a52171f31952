//! Tool calls that arrive in fragments.
//!
//! Which call a fragment continues follows the Vercel AI SDK's `StreamingToolCallTracker`, the most field-tested
//! public model, with additions for what other providers send. Blank ids and names count as absent.
//!
//! | the fragment has | it continues | otherwise |
//! |---|---|---|
//! | an id that is known | the call of that id, if neither name nor index speaks against it | new call |
//! | an unknown id, a known index | the call there, if the name agrees (some hosts send a new id every time) | new call |
//! | no id, a known index | the call there, if the name agrees | new call |
//! | no id, no index, a name | | new call (Gemini sends whole calls so) |
//! | only arguments | the only call, or the only unfinished one | dropped: any guess could spoil a call |
//! | none of these | the last call (Gemini's late `thought_signature`) | dropped |
//!
//! A name agrees if it is absent or equal, if it extends the call's name, or, without an id and before any
//! arguments, as its next piece. A named fragment whose arguments begin an object or array anew, where the
//! call's own are complete, opens a new call whatever its index: gateways exist that give every call index 0.

use super::{
    budget::{Budget, Full},
    fields::{Fields, Join},
    nesting::Nesting,
    raw::{self, Member, Members, Object},
};

/// The calls of one message.
#[derive(Debug, Default)]
pub(super) struct ToolCalls(Vec<Call>);

#[derive(Debug, Default)]
struct Call {
    index: Option<i64>,
    id: Option<Id>,
    /// `type`, a string literal.
    kind: Option<String>,
    body: Body,
    fields: Fields,
}

#[derive(Debug)]
struct Id {
    raw: String,
    /// Decoded; empty for an id that we have made.
    text: String,
}

/// What is called with what: the `function` or `custom` member of a call, or a `function_call`.
#[derive(Debug, Default)]
pub(super) struct Body {
    custom: bool,
    /// The inside of a string literal, as it was sent.
    name: String,
    /// The inside of a string literal: `arguments`, or `input` of a custom tool.
    input: String,
    nesting: Nesting,
    fields: Fields,
}

/// One element of a delta's `tool_calls`.
struct Fragment<'a> {
    index: Option<i64>,
    id: Option<&'a str>,
    kind: Option<&'a str>,
    body: BodyFragment<'a>,
    others: Vec<Member<'a>>,
}

#[derive(Default)]
struct BodyFragment<'a> {
    custom: bool,
    name: Option<&'a str>,
    input: Option<&'a str>,
    others: Vec<Member<'a>>,
}

/// How far a fragment's name may differ from that of the call that it continues.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Names {
    Equal,
    /// The whole name again, longer.
    MayExtend,
    /// Or the next piece of it.
    MayComeInPieces,
}

enum Target {
    Call(usize),
    New,
    Nobody,
}

impl ToolCalls {
    /// Takes an element of `tool_calls`. What is no object is ignored.
    pub(super) fn merge(&mut self, fragment: &str, budget: &mut Budget) -> Result<(), Full> {
        let Some(fragment) = Fragment::read(fragment) else { return Ok(()) };
        let at = match self.resolve(&fragment) {
            Target::Call(at) => at,
            Target::Nobody => return Ok(()),
            Target::New => {
                budget.entry(self.0.len())?;
                budget.part()?;
                self.0.push(Call::default());
                self.0.len() - 1
            }
        };
        self.0[at].merge(fragment, budget)
    }

    /// Whether a call has arguments that are not JSON.
    pub(super) fn any_incomplete(&self) -> bool {
        self.0.iter().any(|call| !call.body.custom && !call.body.is_json())
    }

    /// Leaves out what cannot stand in a message: calls without a name.
    pub(super) fn drop_nameless(&mut self) {
        self.0.retain(|call| !call.body.name.is_empty());
    }

    /// The stream was cut: leaves out every call that could have gone on.
    pub(super) fn drop_unfinished(&mut self) {
        self.0.retain(|call| call.body.is_certainly_whole());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts the calls in order, and gives an id to those that have none.
    pub(super) fn settle(&mut self) {
        if self.0.iter().all(|call| call.index.is_some()) {
            self.0.sort_by_key(|call| call.index);
        }
        for call in &mut self.0 {
            call.id.get_or_insert_with(|| Id { raw: raw::literal(&mint()), text: String::new() });
        }
    }

    /// The ids, decoded; `""` for one that we have made.
    pub(super) fn ids(&self) -> Vec<String> {
        self.0.iter().map(|call| call.id.as_ref().map(|id| id.text.clone()).unwrap_or_default()).collect()
    }

    /// The calls as JSON, joined by commas.
    pub(super) fn interior(&self) -> String {
        let calls: Vec<_> = self.0.iter().map(Call::json).collect();
        calls.join(",")
    }

    fn resolve(&self, new: &Fragment<'_>) -> Target {
        let or_new = |found: Option<usize>| found.map_or(Target::New, Target::Call);
        let at_index = new.index.and_then(|_| self.0.iter().rposition(|call| call.index == new.index));
        if let Some(id) = new.id {
            let id = raw::decode(id);
            let has_id = |call: &Call| call.id.as_ref().is_some_and(|known| known.text == id);
            if !self.0.iter().any(has_id) {
                return or_new(at_index.filter(|&at| self.0[at].continues(new)));
            }
            let fits = |call: &Call| has_id(call) && call.body.agrees(&new.body, Names::MayExtend);
            if let Some(at) = at_index.filter(|&at| fits(&self.0[at])) {
                return Target::Call(at);
            }
            // Ids repeat across parallel calls in the field: a name at another index is another call.
            let elsewhere =
                |call: &Call| new.index.is_some() && new.body.name.is_some() && call.index.is_some();
            return or_new(self.0.iter().rposition(|call| fits(call) && !elsewhere(call)));
        }
        if let Some(at) = at_index {
            return or_new(Some(at).filter(|&at| self.0[at].continues(new)));
        }
        if new.body.name.is_some() {
            return Target::New;
        }
        if new.index.is_some() {
            // The name may follow; but if calls carry no index otherwise, this is no new one.
            return or_new(self.only_open().filter(|&at| self.0[at].index.is_none()));
        }
        let found = if new.body.input.is_some() { self.only_open() } else { self.0.len().checked_sub(1) };
        found.map_or(Target::Nobody, Target::Call)
    }

    /// The only call, or the only one whose arguments are unfinished.
    fn only_open(&self) -> Option<usize> {
        if self.0.len() == 1 {
            return Some(0);
        }
        let mut open = self.0.iter().enumerate().filter(|(_, call)| !call.body.nesting.is_closed());
        match (open.next(), open.next()) {
            (Some((at, _)), None) => Some(at),
            _ => None,
        }
    }
}

impl Call {
    /// Whether a fragment at this call's index, with another id or none, is a piece of it.
    fn continues(&self, new: &Fragment<'_>) -> bool {
        let again = new.body.name.is_some() && self.body.nesting.is_closed() && new.body.opens_structure();
        let names = match (&self.id, new.id) {
            (_, None) => Names::MayComeInPieces,
            (None, Some(_)) => Names::MayExtend,
            (Some(_), Some(_)) => Names::Equal,
        };
        !again && self.body.agrees(&new.body, names)
    }

    fn merge(&mut self, new: Fragment<'_>, budget: &mut Budget) -> Result<(), Full> {
        self.index = self.index.or(new.index);
        if let (None, Some(id)) = (&self.id, new.id) {
            budget.take(id.len())?;
            self.id = Some(Id { raw: id.to_owned(), text: raw::decode(id).into_owned() });
        }
        if let Some(kind) = new.kind.filter(|kind| self.kind.as_deref() != Some(kind)) {
            budget.take(kind.len())?;
            self.kind = Some(kind.to_owned());
        }
        self.body.merge_fragment(new.body, budget)?;
        merge_deep(&mut self.fields, &new.others, budget)
    }

    fn json(&self) -> String {
        let custom =
            self.body.custom || self.kind.as_deref().is_some_and(|kind| raw::decode(kind) == "custom");
        let mut call = Object::default();
        if let Some(id) = &self.id {
            call.member("\"id\"", &id.raw);
        }
        call.member(
            "\"type\"",
            self.kind.as_deref().unwrap_or(if custom { "\"custom\"" } else { "\"function\"" }),
        );
        call.member(if custom { "\"custom\"" } else { "\"function\"" }, &self.body.json(custom));
        self.fields.write(&mut call);
        call.end()
    }
}

impl Body {
    /// Takes the next value of a `function_call`; `None` if it is no object.
    pub(super) fn merge(&mut self, value: &str, budget: &mut Budget) -> Option<Result<(), Full>> {
        Some(self.merge_fragment(BodyFragment::read(value, false)?, budget))
    }

    pub(super) fn is_json(&self) -> bool {
        raw::is_json(&raw::unescape(&self.input))
    }

    /// Whether nothing can have been missing when the stream was cut. Only an object or array shows its end:
    /// empty arguments may be about to begin, a number may go on, and so may a custom tool's text.
    pub(super) fn is_certainly_whole(&self) -> bool {
        !self.custom && !self.name.is_empty() && self.nesting.is_closed() && self.is_json()
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
    fn agrees(&self, new: &BodyFragment<'_>, names: Names) -> bool {
        let Some(name) = new.name else { return true };
        let (name, known) = (raw::decode(name), raw::unescape(&self.name));
        known.is_empty()
            || name == *known
            || (names >= Names::MayExtend && name.starts_with(&*known) && !self.nesting.is_closed())
            || (names == Names::MayComeInPieces && self.input.is_empty())
    }

    fn merge_fragment(&mut self, new: BodyFragment<'_>, budget: &mut Budget) -> Result<(), Full> {
        self.custom |= new.custom;
        if let Some(name) = new.name {
            self.merge_name(name, budget)?;
        }
        match new.input {
            Some(input) if raw::is_string(input) => {
                let more = raw::interior(input);
                budget.take(more.len())?;
                self.input.push_str(more);
                self.nesting.feed_escaped(more);
            }
            // An object is not sent in pieces: it is all of the arguments.
            Some(input) => {
                let text = raw::literal(&raw::compact(input));
                budget.take(text.len())?;
                self.input = raw::interior(&text).to_owned();
                self.nesting = Nesting::default();
                self.nesting.feed_escaped(&self.input);
            }
            None => {}
        }
        merge_deep(&mut self.fields, &new.others, budget)
    }

    fn merge_name(&mut self, name: &str, budget: &mut Budget) -> Result<(), Full> {
        let (decoded, known) = (raw::decode(name), raw::unescape(&self.name));
        if decoded == *known {
            return Ok(());
        }
        budget.take(name.len())?;
        if decoded.starts_with(&*known) {
            self.name.clear();
        }
        self.name.push_str(raw::interior(name));
        Ok(())
    }
}

impl<'a> Fragment<'a> {
    fn read(json: &'a str) -> Option<Self> {
        let mut fragment =
            Self { index: None, id: None, kind: None, body: BodyFragment::default(), others: Vec::new() };
        for member in Members::read(json)?.0 {
            match &*member.name {
                "index" => fragment.index = raw::decode(member.value).trim().parse().ok(),
                "id" => fragment.id = id(member.value),
                "type" => fragment.kind = raw::said(Some(member.value)),
                "function" | "custom" if raw::is_object(member.value) => {
                    fragment.body = BodyFragment::read(member.value, member.name == "custom")?;
                }
                _ if raw::is_null(member.value) => {}
                _ => fragment.others.push(member),
            }
        }
        Some(fragment)
    }
}

impl<'a> BodyFragment<'a> {
    fn read(json: &'a str, custom: bool) -> Option<Self> {
        let mut body = Self { custom, ..Self::default() };
        for member in Members::read(json)?.0 {
            match &*member.name {
                "name" => body.name = raw::said(Some(member.value)),
                "arguments" | "input" if custom == (member.name == "input") => {
                    body.input = Some(member.value).filter(|value| !raw::is_null(value));
                }
                _ if raw::is_null(member.value) => {}
                _ => body.others.push(member),
            }
        }
        Some(body)
    }

    fn opens_structure(&self) -> bool {
        let Some(input) = self.input else { return false };
        raw::decode(input).trim_start().starts_with(['{', '['])
    }
}

/// An id as it was sent, unless it is blank. Providers pack signatures into ids, and some send numbers: an id
/// is never changed.
pub(super) fn id(value: &str) -> Option<&str> {
    Some(value).filter(|value| !raw::is_null(value) && !raw::decode(value).trim().is_empty())
}

/// An id for a call that came without one. Upstreams require ids on the way back.
pub(super) fn mint() -> String {
    format!("call_{}", uuid::Uuid::now_v7().simple())
}

fn merge_deep(fields: &mut Fields, new: &[Member<'_>], budget: &mut Budget) -> Result<(), Full> {
    new.iter().try_for_each(|member| fields.merge(member, Join::Deep, budget))
}
