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
    fields::Fields,
    tool_body::{Body, BodyFragment, Names, merge_deep},
};
use crate::protocol::json::{
    members::{Member, Members},
    text::{self, Object},
};

/// The calls of one message.
#[derive(Default)]
pub(super) struct ToolCalls(Vec<Call>);

#[derive(Default)]
struct Call {
    index: Option<i64>,
    id: Option<Id>,
    /// `type`, a string literal.
    kind: Option<String>,
    body: Body,
    fields: Fields,
}

struct Id {
    raw: String,
    /// Decoded; empty for an id that we have made.
    text: String,
}

/// One element of a delta's `tool_calls`.
struct Fragment<'a> {
    index: Option<i64>,
    id: Option<&'a str>,
    kind: Option<&'a str>,
    body: BodyFragment<'a>,
    others: Vec<Member<'a>>,
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
        self.0.iter().any(|call| !call.body.is_custom() && !call.body.is_json())
    }

    /// Leaves out what cannot stand in a message: calls without a name.
    pub(super) fn drop_nameless(&mut self) {
        self.0.retain(|call| call.body.has_name());
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
            call.id.get_or_insert_with(|| Id { raw: text::quoted(&mint()), text: String::new() });
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
            let id = text::decode(id);
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
        let mut open = self.0.iter().enumerate().filter(|(_, call)| !call.body.is_closed());
        match (open.next(), open.next()) {
            (Some((at, _)), None) => Some(at),
            _ => None,
        }
    }
}

impl Call {
    /// Whether a fragment at this call's index, with another id or none, is a piece of it.
    fn continues(&self, new: &Fragment<'_>) -> bool {
        let again = new.body.name.is_some() && self.body.is_closed() && new.body.opens_structure();
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
            self.id = Some(Id { raw: id.to_owned(), text: text::decode(id).into_owned() });
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
            self.body.is_custom() || self.kind.as_deref().is_some_and(|kind| text::decode(kind) == "custom");
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

impl<'a> Fragment<'a> {
    fn read(json: &'a str) -> Option<Self> {
        let mut fragment =
            Self { index: None, id: None, kind: None, body: BodyFragment::default(), others: Vec::new() };
        for member in Members::read(json)?.0 {
            match &*member.name {
                "index" => fragment.index = text::decode(member.value).trim().parse().ok(),
                "id" => fragment.id = id(member.value),
                "type" => fragment.kind = text::said(Some(member.value)),
                "function" | "custom" if text::is_object(member.value) => {
                    fragment.body = BodyFragment::read(member.value, member.name == "custom")?;
                }
                _ if text::is_null(member.value) => {}
                _ => fragment.others.push(member),
            }
        }
        Some(fragment)
    }
}

/// An id as it was sent, unless it is blank. Providers pack signatures into ids, and some send numbers: an id
/// is never changed.
pub(super) fn id(value: &str) -> Option<&str> {
    Some(value).filter(|value| !text::is_null(value) && !text::decode(value).trim().is_empty())
}

/// An id for a call that came without one. Upstreams require ids on the way back.
pub(super) fn mint() -> String {
    format!("call_{}", uuid::Uuid::now_v7().simple())
}
