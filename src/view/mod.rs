//! The view: what the upstream is shown of a path.
//!
//! The log is what was said; the view is what the model gets. Each step is a pure function of the path and of the
//! limits in force, one file a step, and [`show`] is the only way through all of them:
//!
//! | step | file | what it does |
//! |---|---|---|
//! | valid | `valid.rs` | leaves out what strict upstreams would refuse |
//! | window | `window.rs` | cuts a path that has outgrown the limits |
//!
//! A new step is a new file and a line in [`show`]. What the steps did stands in the [`Recipe`], which is stored with
//! the turn.

mod valid;
mod window;

pub use valid::valid;
pub use window::Window;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::history::{Item, Path, RecordId};

/// What an upstream is shown of a path, and how that came about.
#[derive(Debug, Clone)]
pub(crate) struct View<'a> {
    path: Path<'a>,
    pub(crate) recipe: Recipe,
}

/// What the steps of a view did: stored with the turn that was answered from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Recipe {
    /// The turn that a window opens with, where it has cut the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<RecordId>,
}

/// Place on a path, between items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    /// How many whole turns stand before it.
    pub(crate) turns: usize,
    /// How many items of the next one.
    pub(crate) items: usize,
}

/// What is shown of a path to a client that sends these items, the first `known` of which end the path: what stands
/// before `until`, where those begin.
///
/// The window is that of the whole path, so that the client's own forgetting does not move it.
pub(crate) fn show<'a>(
    path: &Path<'a>,
    window: Window,
    sent: &[Item],
    known: usize,
    until: Option<Cut>,
) -> View<'a> {
    let mut whole = valid(path, &sent[known..]);
    let start = window.start(&whole);
    let opening = whole.turn(start).map(|(turn, _)| turn.id());
    let recipe = Recipe { from: opening.filter(|_| start > 0) };
    let Some(until) = until else {
        whole.leave_out_first(start);
        return View { path: whole, recipe };
    };
    let start = opening.and_then(|turn| path.position(turn)).unwrap_or(0);
    let shown = match start.cmp(&until.turns) {
        std::cmp::Ordering::Greater => path.part(0..0),
        _ => {
            let mut before = path.before(until.turns, until.items);
            before.leave_out_first(start);
            before
        }
    };
    View { path: valid(&shown, sent), recipe }
}

impl View<'_> {
    /// How many items it has.
    pub(crate) fn items(&self) -> usize {
        self.path.items()
    }

    /// Its items as they are inserted.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = Bytes> {
        self.path.pieces()
    }
}

impl Recipe {
    /// The recipe as records hold it; nothing where the whole path was shown.
    pub(crate) fn to_raw(self) -> Option<Box<RawValue>> {
        if self == Self::default() { None } else { to_raw_value(&self).ok() }
    }
}
