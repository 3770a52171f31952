//! Making sense of what a client sent, whether that is one new message or everything it remembers.
//!
//! C is what the client sent: P, its instructions, then R. H is the history's items. Items are compared by what they
//! say ([`Canonical`]), and only where the outcome depends on it.

mod compare;
mod plan;

pub use plan::{Instructions, Mode, Plan};

use bytes::Bytes;

use self::compare::{CanonicalOf, Comparison, Digests};
use crate::{
    history::{Author, ClientCase, Item, Log, Parent, Path, TurnState},
    view::{self, Cut, Recipe, View, Window, valid},
};

/// A request's items, and all that decides how they continue the session.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    /// P: the client's instructions.
    pub instructions: &'a [Item],
    /// R: its items after the instructions.
    pub items: &'a [Item],
    /// What is stored.
    pub log: &'a Log,
    /// What was looked up for it: stands before what is inserted of the history.
    pub lead: &'a [Bytes],
    /// What the client says of its own items.
    pub mode: Mode,
    /// Whether the client says that it sends the request again (`x-stainless-retry-count` of 1 or more).
    pub retried: bool,
    /// Whose instructions are sent.
    pub remember: Instructions,
    /// How much of the history is sent.
    pub window: Window,
}

/// Decides how a request continues its session.
///
/// | case | what the client sent | upstream sees | stored with the reply | parent |
/// |---|---|---|---|---|
/// | `new` | anything; nothing is stored yet | C | R | previous |
/// | `retry` | R of the newest turn, which was interrupted, or the client says so (the end of H may stand before it) | P′, H without that turn, R | R | that turn's parent |
/// | `delta` | no item of the model | P′ H R | R | previous |
/// | `resend` | all of H, and more | C | what follows H | previous |
/// | `window` | the end of H, from a reply or before, and more | P′, the rest of H, R | what follows H | previous |
/// | `edit` | the first turn of H or more, and then something else, or nothing | C | what follows the last whole turn | that turn |
/// | `unrelated` | anything else | C | R | none |
///
/// The first row that fits counts. P′ is P, or the newest instructions on the path if P is empty. What is
/// inserted is made valid (`view/valid.rs`) and cut to the [`Window`]. A client that was spoken to through a
/// repaired view remembers that, so H is tried as it is stored and then as it is valid.
///
/// [`Mode::Reset`] is `new` with no parent, whatever is stored; [`Mode::Append`] is `delta` whatever R is, unless it
/// is a `retry`.
#[must_use]
pub fn reconcile(incoming: &Incoming<'_>, canonical: CanonicalOf<'_>) -> Plan {
    let path = incoming.log.path();
    if incoming.mode == Mode::Reset {
        return incoming.as_sent(ClientCase::New, Parent::Root, &path.part(0..0), 0);
    }
    if path.is_empty() {
        return incoming.as_sent(ClientCase::New, Parent::Previous, &path, 0);
    }
    if let Some(plan) = incoming.retry(canonical) {
        return plan;
    }
    if incoming.mode == Mode::Append {
        return incoming.after(ClientCase::Delta, Parent::Previous, &path);
    }
    if !incoming.items.iter().any(|item| item.author() == Author::Model) {
        return incoming.after(ClientCase::Delta, Parent::Previous, &path);
    }
    incoming.overlap(&path, canonical)
}

impl<'a> Incoming<'a> {
    /// R, or what of R follows the end of H without its newest turn, is that turn's again.
    fn retry(&self, canonical: CanonicalOf<'_>) -> Option<Plan> {
        let head = self.log.head()?;
        if !self.retried && head.state() != TurnState::Interrupted {
            return None;
        }
        let known = self.items.len().checked_sub(head.sent())?;
        let mut pairs = head.items().zip(&self.items[known..]);
        if !pairs.all(|(stored, sent)| stored.raw() == sent.raw() || canonical(&stored) == canonical(sent)) {
            return None;
        }
        let before = self.log.path_before_head();
        let parent = before.end().map_or(Parent::Root, Parent::At);
        if known == 0 {
            return Some(self.after(ClientCase::Retry, parent, &before));
        }
        let sent = Digests::new(self.items.iter().cloned(), canonical);
        let (cut, _) = Comparison::new(before.clone(), &sent).tail().filter(|(_, tail)| *tail == known)?;
        let view = self.view(&before, known, Some(cut));
        Some(self.inserted(ClientCase::Retry, parent, &before, view, known))
    }

    /// R holds items of the model: finds out which.
    fn overlap(&self, path: &Path<'a>, canonical: CanonicalOf<'_>) -> Plan {
        let sent = Digests::new(self.items.iter().cloned(), canonical);
        let stored = Comparison::new(path.clone(), &sent);
        let common = stored.common();
        if let Some(plan) = self.goes_on(path, &stored, common) {
            return plan;
        }
        let mut edited = stored.last_whole_turn(common);
        let shown = valid(path, self.items);
        if shown.len() < path.len() {
            let shown = Comparison::new(shown, &sent);
            let shown_common = shown.common();
            // Where the path as it is stored agrees further, the client knows the turn that the view hides.
            if shown_common >= common {
                if let Some(plan) = self.goes_on(path, &shown, shown_common) {
                    return plan;
                }
                edited = shown.last_whole_turn(shown_common);
            }
        }
        match edited {
            Some((place, end)) => {
                let turns = path.position(place.turn).map_or(path.len(), |at| at + 1);
                self.as_sent(ClientCase::Edit, Parent::At(place), &path.part(0..turns), end)
            }
            None => self.as_sent(ClientCase::Unrelated, Parent::Root, &path.part(0..0), 0),
        }
    }

    fn goes_on(&self, path: &Path<'a>, compared: &Comparison<'_, 'a>, common: usize) -> Option<Plan> {
        if compared.resends(common) {
            return Some(self.as_sent(ClientCase::Resend, Parent::Previous, path, common));
        }
        let (cut, known) = compared.tail()?;
        let view = self.view(compared.path(), known, Some(cut));
        Some(self.inserted(ClientCase::Window, Parent::Previous, path, view, known))
    }

    /// C goes upstream as it is; of R, the first `known` items are stored already.
    fn as_sent(&self, case: ClientCase, parent: Parent, path: &Path<'_>, known: usize) -> Plan {
        let new = known..self.items.len();
        Plan {
            case,
            parent,
            stores_instructions: self.stores_instructions(path),
            turns: path.len(),
            items: path.items() + new.len(),
            sent: self.items.len(),
            recipe: Recipe::default(),
            instructions: None,
            lead: Vec::new(),
            history: Vec::new(),
            new,
        }
    }

    /// R is new, and goes after this path.
    fn after(&self, case: ClientCase, parent: Parent, path: &Path<'a>) -> Plan {
        self.inserted(case, parent, path, self.view(path, 0, None), 0)
    }

    fn view(&self, path: &Path<'a>, known: usize, until: Option<Cut>) -> View<'a> {
        view::show(path, self.window, self.items, known, until)
    }

    /// The view goes between P′ and R; of R, the first `known` items are stored already.
    fn inserted(
        &self,
        case: ClientCase,
        parent: Parent,
        path: &Path<'_>,
        view: View<'_>,
        known: usize,
    ) -> Plan {
        let mut plan = self.as_sent(case, parent, path, known);
        plan.sent += view.items();
        plan.recipe = view.recipe;
        plan.instructions =
            path.instructions().filter(|_| self.instructions.is_empty() && self.remembers()).cloned();
        plan.lead = self.lead.to_vec();
        plan.history = view.pieces().collect();
        plan
    }

    fn remembers(&self) -> bool {
        self.remember == Instructions::Remember
    }

    fn stores_instructions(&self, path: &Path<'_>) -> bool {
        !self.instructions.is_empty() && self.remembers() && !path.has_instructions(self.instructions)
    }
}

#[cfg(test)]
mod tests;
