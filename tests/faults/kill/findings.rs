//! What the clients noted, compared with what the store holds.

use std::collections::{BTreeMap, HashMap};

use tower_session_memory::store::DynHistoryStore;

use crate::common::{Stored, store};

/// What a client knows of one of its turns.
#[derive(Debug, Clone)]
pub(crate) struct Note {
    pub(crate) session: String,
    pub(crate) text: String,
    /// Whether the client saw the turn's end.
    pub(crate) ended: bool,
    /// Whether the model was then shown fewer turns than the client had seen to end.
    pub(crate) forgotten: bool,
}

/// What the comparison found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) sent: usize,
    pub(crate) ended: usize,
    pub(crate) stored: usize,
    pub(crate) lost: usize,
    pub(crate) doubled: usize,
    pub(crate) torn: usize,
    pub(crate) disordered: usize,
    pub(crate) unknown: usize,
    pub(crate) forgotten: usize,
}

impl Findings {
    pub(crate) fn faults(&self) -> usize {
        self.lost + self.doubled + self.torn + self.disordered + self.unknown + self.forgotten
    }
}

impl std::fmt::Display for Findings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} turns sent, {} seen to end, {} stored; \
             {} lost, {} doubled, {} torn, {} out of order, {} never sent, {} missing from the next request",
            self.sent,
            self.ended,
            self.stored,
            self.lost,
            self.doubled,
            self.torn,
            self.disordered,
            self.unknown,
            self.forgotten
        )
    }
}

pub(crate) async fn compare(notes: &[Note], store: &dyn DynHistoryStore) -> Findings {
    let mut sessions: BTreeMap<&str, Vec<&Note>> = BTreeMap::new();
    for note in notes {
        sessions.entry(&note.session).or_default().push(note);
    }
    let mut findings = Findings { sent: notes.len(), ..Findings::default() };
    for (session, notes) in sessions {
        let turns = store::load(store, session).await;
        findings.stored += turns.len();
        let mut places: HashMap<String, Vec<usize>> = HashMap::new();
        for (place, turn) in turns.iter().enumerate() {
            findings.torn += usize::from(!is_whole(turn));
            places.entry(turn.texts().swap_remove(0)).or_default().push(place);
        }
        let mut newest = None;
        for note in notes {
            let places = places.remove(&note.text).unwrap_or_default();
            findings.ended += usize::from(note.ended);
            findings.forgotten += usize::from(note.forgotten);
            findings.lost += usize::from(note.ended && places.is_empty());
            findings.doubled += usize::from(places.len() > 1);
            // A client sends one turn after the other, so they stand in the log in the order of sending.
            // One that broke off is excused: its append may still have been on its way.
            if note.ended {
                findings.disordered += usize::from(places.first().copied() < newest);
                newest = places.first().copied().max(newest);
            }
        }
        findings.unknown += places.len();
    }
    findings
}

/// Whether a stored turn is one question and the whole of its answer.
fn is_whole(turn: &Stored) -> bool {
    let texts = turn.texts();
    let [question, answer] = texts.as_slice() else { return false };
    turn.is_complete() && answer.starts_with("You said ") && answer.ends_with(&format!(": {question}"))
}
