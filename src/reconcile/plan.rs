use std::{fmt, ops::Range};

use bytes::Bytes;

use crate::{
    history::{ClientCase, Parent},
    protocol::Insertion,
    view::Recipe,
};

/// What the client says of its own items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Nothing: they are recognised by comparing them with the history.
    #[default]
    Recognize,
    /// Everything after the instructions is new, even items of the model.
    Append,
    /// The conversation starts again from the root.
    Reset,
}

/// Whose instructions are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Instructions {
    /// The client's if it sends any, else the newest that it sent before in this conversation.
    #[default]
    Remember,
    /// The client's only; none are stored.
    Client,
}

/// What goes upstream, and what will be stored. `Debug` shows no content.
#[derive(Clone)]
pub struct Plan {
    /// How the client's items continue the session.
    pub case: ClientCase,
    /// The parent of the turn to store.
    pub parent: Parent,
    /// Which of the client's items after its instructions are new: the turn's own, the reply aside.
    pub new: Range<usize>,
    /// Whether the client's instructions differ from those of the parent's path, so that they are stored with the
    /// turn.
    pub stores_instructions: bool,
    /// How many turns the parent's path has.
    pub turns: usize,
    /// How many items the conversation has with this request, instructions not counted.
    pub items: usize,
    /// How many of them are sent upstream.
    pub sent: usize,
    /// How the view came about.
    pub recipe: Recipe,
    /// Remembered instructions, where the client sends none: raw items joined by single commas.
    pub instructions: Option<Bytes>,
    /// What was looked up: groups of raw items, as those of the view.
    pub lead: Vec<Bytes>,
    /// The view: groups of raw items joined by single commas. Empty for a request that goes upstream as it was sent.
    pub history: Vec<Bytes>,
}

impl Plan {
    /// What is inserted into the request.
    #[must_use]
    pub fn insertion(&self) -> Insertion<'_> {
        Insertion { instructions: self.instructions.as_ref(), lead: &self.lead, history: &self.history }
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("case", &self.case)
            .field("parent", &self.parent)
            .field("new", &self.new)
            .field("stores_instructions", &self.stores_instructions)
            .field("turns", &self.turns)
            .field("items", &self.items)
            .field("sent", &self.sent)
            .field("recipe", &self.recipe)
            .finish_non_exhaustive()
    }
}
