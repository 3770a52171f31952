//! Reasoning blocks whose members arrive in fragments.

use super::{
    budget::{Budget, Full},
    fields::{Fields, Join},
};
use crate::protocol::json::{
    members::Members,
    text::{self, Object},
};

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
        let Some(members) = Members::read(block) else { return Ok(()) };
        let value = |name| members.get(name).filter(|value| !text::is_null(value));
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
