//! Making sense of what a client sent, whether that is one new message or everything it remembers.
//!
//! C is what the client sent: P, its leading instructions, then R. H is the history's messages. Messages are
//! compared by what they say ([`Canonical`](super::Canonical)), and only where the outcome depends on it.

use bytes::Bytes;

use super::{
    ClientCase, Instructions, Log, Message, Mode, Parent, Path, Plan, Record, Role, TurnState, Window,
    compare::{CanonicalOf, Comparison, Cut, Digests},
};

/// A request's messages, and all that decides how they continue the session.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    /// The messages as the client sent them.
    pub messages: &'a [Message],
    /// How many of them lead as instructions.
    pub leading: usize,
    /// What is stored.
    pub log: &'a Log,
    /// What the client says of its own messages.
    pub mode: Mode,
    /// Whether the client says that it sends the request again (`x-stainless-retry-count` of 1 or more).
    pub retried: bool,
    /// Whose instructions are sent.
    pub instructions: Instructions,
    /// How much of the history is sent.
    pub window: Window,
}

/// Decides how a request continues its session.
///
/// | case | what the client sent | upstream sees | stored with the reply | parent |
/// |---|---|---|---|---|
/// | `new` | anything; nothing is stored yet | C | R | previous |
/// | `retry` | R of the newest turn, which was interrupted, or the client says so (the end of H may stand before it) | P′, H without that turn, R | R | that turn's parent |
/// | `delta` | no assistant message | P′ H R | R | previous |
/// | `resend` | all of H, and more | C | what follows H | previous |
/// | `window` | the end of H, from an assistant message or before, and more | P′, the rest of H, R | what follows H | previous |
/// | `edit` | the first turn of H or more, and then something else, or nothing | C | what follows the last whole turn | that turn |
/// | `unrelated` | anything else | C | R | none |
///
/// The first row that fits counts. P′ is P, or the newest instructions on the path if P is empty. What is
/// inserted is healed ([`Path::healed`]) and cut to the [`Window`]. A client that was spoken to through a
/// healed view remembers that, so H is tried as it is stored and then as it is healed.
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
    if !incoming.rest().iter().any(|message| *message.role() == Role::Assistant) {
        return incoming.after(ClientCase::Delta, Parent::Previous, &path);
    }
    incoming.overlap(&path, canonical)
}

impl<'a> Incoming<'a> {
    /// R.
    fn rest(&self) -> &'a [Message] {
        &self.messages[self.leading..]
    }

    /// R, or what of R follows the end of H without its newest turn, is that turn's again.
    fn retry(&self, canonical: CanonicalOf<'_>) -> Option<Plan> {
        let head = self.log.head()?;
        if !self.retried && head.state() != TurnState::Interrupted {
            return None;
        }
        let known = self.rest().len().checked_sub(head.sent())?;
        let mut pairs = head.messages().zip(&self.rest()[known..]);
        if !pairs.all(|(stored, sent)| stored.raw() == sent.raw() || canonical(&stored) == canonical(sent)) {
            return None;
        }
        let before = self.log.path_before_head();
        let parent = before.turns().next_back().map_or(Parent::Root, |turn| Parent::Turn(turn.id()));
        if known == 0 {
            return Some(self.after(ClientCase::Retry, parent, &before));
        }
        let sent = Digests::new(self.rest().iter().cloned(), canonical);
        let (cut, _) = Comparison::new(before.clone(), &sent).tail().filter(|(_, tail)| *tail == known)?;
        let view = self.view_before(&before, cut, known);
        Some(self.spliced(ClientCase::Retry, parent, &before, view, known))
    }

    /// R holds assistant messages: finds out which.
    fn overlap(&self, path: &Path<'a>, canonical: CanonicalOf<'_>) -> Plan {
        let sent = Digests::new(self.rest().iter().cloned(), canonical);
        let stored = Comparison::new(path.clone(), &sent);
        let common = stored.common();
        if let Some(plan) = self.goes_on(path, &stored, common) {
            return plan;
        }
        let mut edited = stored.last_whole_turn(common);
        let healed = path.healed(self.rest());
        if healed.len() < path.len() {
            let healed = Comparison::new(healed, &sent);
            let healed_common = healed.common();
            // Where the path as it is stored agrees further, the client knows the turn that healing hides.
            if healed_common >= common {
                if let Some(plan) = self.goes_on(path, &healed, healed_common) {
                    return plan;
                }
                edited = healed.last_whole_turn(healed_common);
            }
        }
        match edited {
            Some((turn, end)) => {
                self.as_sent(ClientCase::Edit, Parent::Turn(turn.id()), &path.up_to(turn.id()), end)
            }
            None => self.as_sent(ClientCase::Unrelated, Parent::Root, &path.part(0..0), 0),
        }
    }

    fn goes_on(&self, path: &Path<'a>, compared: &Comparison<'_, 'a>, common: usize) -> Option<Plan> {
        if compared.resends(common) {
            return Some(self.as_sent(ClientCase::Resend, Parent::Previous, path, common));
        }
        let (cut, known) = compared.tail()?;
        let view = self.view_before(compared.path(), cut, known);
        Some(self.spliced(ClientCase::Window, Parent::Previous, path, view, known))
    }

    /// C goes upstream as it is; of R, the first `known` messages are stored already.
    fn as_sent(&self, case: ClientCase, parent: Parent, path: &Path<'_>, known: usize) -> Plan {
        let new = self.leading + known..self.messages.len();
        Plan {
            case,
            parent,
            stores_instructions: self.stores_instructions(path),
            turns: path.len(),
            messages: path.messages() + new.len(),
            sent: self.rest().len(),
            insertion: Vec::new(),
            new,
        }
    }

    /// R is new, and goes after this path.
    fn after(&self, case: ClientCase, parent: Parent, path: &Path<'a>) -> Plan {
        let healed = path.healed(self.rest());
        let start = self.window.start(&healed);
        let view = View { turns: healed.part(start..healed.len()), partial: None };
        self.spliced(case, parent, path, view, 0)
    }

    /// What stands before the cut and inside the window. The window is that of the whole path, so that the
    /// client's own forgetting does not move it.
    fn view_before(&self, path: &Path<'a>, cut: Cut, known: usize) -> View<'a> {
        let whole = path.healed(&self.rest()[known..]);
        let opening = whole.turn(self.window.start(&whole));
        let start = opening.and_then(|turn| path.position(turn.id())).unwrap_or(0);

        let partial = path.turn(cut.turns).filter(|_| cut.messages > 0 && start <= cut.turns);
        let before = path.part(start.min(cut.turns)..cut.turns);
        let healed = match partial {
            Some(turn) => before.healed(&turn.messages().take(cut.messages).collect::<Vec<_>>()),
            None => before.healed(self.rest()),
        };
        View { turns: healed, partial: partial.map(|turn| (turn, cut.messages)) }
    }

    /// The view goes between P′ and R; of R, the first `known` messages are stored already.
    fn spliced(
        &self,
        case: ClientCase,
        parent: Parent,
        path: &Path<'_>,
        view: View<'_>,
        known: usize,
    ) -> Plan {
        let mut plan = self.as_sent(case, parent, path, known);
        plan.sent += view.messages();
        let remembered = path.instructions().filter(|_| self.leading == 0 && self.remembers());
        plan.insertion = remembered.cloned().into_iter().chain(view.pieces()).collect();
        plan
    }

    fn remembers(&self) -> bool {
        self.instructions == Instructions::Remember
    }

    fn stores_instructions(&self, path: &Path<'_>) -> bool {
        self.leading > 0 && self.remembers() && !path.has_instructions(&self.messages[..self.leading])
    }
}

/// What is inserted of the history: whole turns, and the first messages of one more.
struct View<'a> {
    turns: Path<'a>,
    partial: Option<(&'a Record, usize)>,
}

impl View<'_> {
    fn messages(&self) -> usize {
        self.turns.messages() + self.partial.map_or(0, |(_, count)| count)
    }

    fn pieces(&self) -> impl Iterator<Item = Bytes> {
        self.turns.pieces().chain(self.partial.map(|(turn, count)| turn.first_message_bytes(count)))
    }
}

#[cfg(test)]
mod tests;
