use std::{collections::VecDeque, num::NonZeroUsize};

use crate::history::Path;

/// How much of the history is sent. It bounds the view, never the log.
///
/// A path that outgrows a limit is cut back to half of both, at a turn that a user message opens, so never
/// inside a tool exchange. The cut depends on the path alone and stays where it is until a limit is reached
/// again: in between, every request extends the one before byte for byte, and the provider's prompt cache
/// keeps hitting. The newest turn is always sent whole, whatever its size.
///
/// # Defaults
///
/// 256 turns, 512 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Window {
    /// Most turns in the view.
    pub turns: NonZeroUsize,
    /// Most bytes of messages in the view. Instructions and the request's own messages are not counted.
    pub bytes: usize,
}

impl Default for Window {
    fn default() -> Self {
        Self { turns: NonZeroUsize::MIN.saturating_add(255), bytes: 512 * 1024 }
    }
}

impl Window {
    /// The whole history, whatever its size.
    pub const UNBOUNDED: Self = Self { turns: NonZeroUsize::MAX, bytes: usize::MAX };

    /// Sets [`turns`](Self::turns). Default: 256.
    #[must_use]
    pub fn with_turns(mut self, turns: NonZeroUsize) -> Self {
        self.turns = turns;
        self
    }

    /// Sets [`bytes`](Self::bytes). Default: 512 KiB.
    #[must_use]
    pub fn with_bytes(mut self, bytes: usize) -> Self {
        self.bytes = bytes;
        self
    }

    /// The place on the path of the first turn that is sent.
    pub(crate) fn start(&self, path: &Path<'_>) -> usize {
        self.fold(path.extents().map(|turn| Step {
            // Each turn is followed by a comma.
            bytes: turn.bytes + 1,
            opens: turn.opens,
        }))
    }

    fn fold(&self, steps: impl Iterator<Item = Step>) -> usize {
        let mut start = Place { turn: 0, bytes_before: 0 };
        let mut bytes = 0;
        // Where a cut is possible after `start`. Each place is looked at twice at most.
        let mut openings = VecDeque::new();
        for (turn, step) in steps.enumerate() {
            if step.opens && turn > 0 {
                openings.push_back(Place { turn, bytes_before: bytes });
            }
            bytes += step.bytes;
            let size = |from: &Place| (turn + 1 - from.turn, bytes - from.bytes_before);
            if within(size(&start), (self.turns.get(), self.bytes)) {
                continue;
            }
            while let Some(opening) = openings.pop_front() {
                start = opening;
                if within(size(&start), self.low_water()) {
                    break;
                }
            }
        }
        start.turn
    }

    fn low_water(&self) -> (usize, usize) {
        (self.turns.get().div_ceil(2), self.bytes / 2)
    }
}

fn within(size: (usize, usize), limit: (usize, usize)) -> bool {
    size.0 <= limit.0 && size.1 <= limit.1
}

#[derive(Debug, Clone, Copy)]
struct Step {
    bytes: usize,
    opens: bool,
}

struct Place {
    turn: usize,
    bytes_before: usize,
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn window(turns: usize, bytes: usize) -> Window {
        Window { turns: NonZeroUsize::new(turns).unwrap(), bytes }
    }

    fn start(window: Window, steps: &[Step]) -> usize {
        window.fold(steps.iter().copied())
    }

    fn bytes(steps: &[Step]) -> usize {
        steps.iter().map(|step| step.bytes).sum()
    }

    #[test]
    fn the_default_is_the_newest_256_turns_cut_back_to_128() {
        let steps = vec![Step { bytes: 100, opens: true }; 400];
        assert_eq!(start(Window::default(), &steps[..256]), 0);
        assert_eq!(start(Window::default(), &steps[..257]), 257 - 128);
        assert_eq!(start(Window::default(), &steps[..385]), 257 - 128, "the cut stays for 128 turns");
        assert_eq!(start(Window::default(), &steps[..386]), 386 - 128);
    }

    #[test]
    fn a_newest_turn_that_is_larger_than_the_window_is_sent_whole_and_alone() {
        let steps = [Step { bytes: 10, opens: true }, Step { bytes: 1_000, opens: true }];
        assert_eq!(start(window(10, 100), &steps), 1);
        assert_eq!(start(window(10, 0), &steps), 1);
    }

    #[test]
    fn an_exchange_of_tools_is_never_cut() {
        let mut steps = vec![Step { bytes: 10, opens: true }; 5];
        steps.extend([Step { bytes: 10, opens: false }; 20]);
        assert_eq!(start(window(4, usize::MAX), &steps), 4, "the exchange was opened by the fifth turn");
    }

    proptest! {
        #[test]
        fn cuts_are_rare_stable_and_where_a_user_speaks(
            steps in prop::collection::vec(
                (1_usize..200, prop::bool::weighted(0.7)).prop_map(|(bytes, opens)| Step { bytes, opens }),
                1..80,
            ),
            turns in 1_usize..12,
            limit in 0_usize..1_000,
        ) {
            let window = window(turns, limit);
            let mut before = 0;
            for len in 1..=steps.len() {
                let path = &steps[..len];
                let at = start(window, path);
                prop_assert!(at >= before, "the window went back from {before} to {at}");
                prop_assert!(at < len, "the newest turn is not sent");
                prop_assert!(at == 0 || path[at].opens, "the window opens inside an exchange");
                let later = path[at + 1..].iter().any(|step| step.opens);
                let sent = (len - at, bytes(&path[at..]));
                prop_assert!(within(sent, (turns, limit)) || !later, "the window is too large: {sent:?}");
                if at != before {
                    let kept = (len - before, bytes(&path[before..]));
                    prop_assert!(!within(kept, (turns, limit)), "cut without need: {kept:?}");
                    prop_assert!(within(sent, window.low_water()) || !later, "cut back too little: {sent:?}");
                }
                before = at;
            }
        }
    }
}
