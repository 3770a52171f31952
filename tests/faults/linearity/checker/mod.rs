//! Is this history one that a store which does one thing at a time could have made?
//!
//! The checker is complete for our model, and needs no search: every turn has an identity (the number that the
//! upstream's reply begins with), every request that reached the upstream shows a whole path of its session,
//! and the store is read in the end. It checks of every session that
//!
//! - (a) a turn whose end a client saw is in the log once,
//! - (b) any other is there at most once, and a reply that broke off is not,
//! - (c) a turn is what the client sent and the whole reply to it, side by side,
//! - (d) the log's order is one that time allows,
//! - (e) what the upstream was shown is the path to the newest turn of some beginning of the log, and that
//!   beginning is neither older nor newer than time allows, and never older than one shown before,
//! - (f) nothing of another session is in any of it.
//!
//! Sessions that are deleted, or whose store lost its newest turns, are no more one log: see [`lines`].

mod branches;
mod case;
mod lines;
mod model;
mod tests;

use std::collections::{BTreeSet, HashSet};

use self::case::{Case, Facts};
pub use self::case::{Violation, What};
use crate::linearity::history::{History, Kind, Session};

/// What is wrong with a history; nothing if it is as it should be.
pub fn check(history: &History) -> Vec<Violation> {
    let facts = Facts::new(history);
    let deleted: HashSet<&Session> =
        history.ops.iter().filter(|op| op.kind == Kind::Delete).map(|op| &op.session).collect();
    let mut found = Vec::new();
    for session in facts.sessions() {
        let mut case = Case::new(&facts, session);
        case.everything_has_its_place();
        if deleted.contains(session) || !history.rewinds.is_empty() {
            lines::check(&mut case);
        } else {
            branches::check(&mut case);
        }
        found.append(&mut case.found);
    }
    found
}

/// The kinds of violations, each once.
pub fn kinds(found: &[Violation]) -> BTreeSet<What> {
    found.iter().map(|violation| violation.what).collect()
}
