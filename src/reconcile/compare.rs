//! Where a client's items and a stored path agree.

use std::cell::OnceCell;

use crate::{
    history::{Author, Canonical, Item, Path, Place},
    view::Cut,
};

pub(super) type CanonicalOf<'a> = &'a dyn Fn(&Item) -> Canonical;

/// Items whose digests are made when they are first asked for.
pub(super) struct Digests<'a> {
    items: Vec<Item>,
    digests: Vec<OnceCell<Canonical>>,
    canonical: CanonicalOf<'a>,
}

impl<'a> Digests<'a> {
    pub(super) fn new(items: impl IntoIterator<Item = Item>, canonical: CanonicalOf<'a>) -> Self {
        let items: Vec<_> = items.into_iter().collect();
        let digests = vec![OnceCell::new(); items.len()];
        Self { items, digests, canonical }
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    fn digest(&self, at: usize) -> Canonical {
        *self.digests[at].get_or_init(|| (self.canonical)(&self.items[at]))
    }
}

/// Whether two items, each by its place, say the same. Equal bytes need no digest.
fn same(left: (&Digests<'_>, usize), right: (&Digests<'_>, usize)) -> bool {
    left.0.items[left.1].raw() == right.0.items[right.1].raw()
        || left.0.digest(left.1) == right.0.digest(right.1)
}

/// The client's items (R) beside those of a path (H).
pub(super) struct Comparison<'c, 'a> {
    path: Path<'a>,
    stored: Digests<'c>,
    /// For each turn of the path, where its items end in `stored`.
    ends: Vec<usize>,
    sent: &'c Digests<'c>,
}

impl<'c, 'a> Comparison<'c, 'a> {
    pub(super) fn new(path: Path<'a>, sent: &'c Digests<'c>) -> Self {
        let turns = || (0..path.len()).filter_map(|at| path.turn(at));
        let stored = Digests::new(turns().flat_map(|(turn, items)| turn.items().take(items)), sent.canonical);
        let ends = turns()
            .scan(0, |end, (_, items)| {
                *end += items;
                Some(*end)
            })
            .collect();
        Self { path, stored, ends, sent }
    }

    pub(super) fn path(&self) -> &Path<'a> {
        &self.path
    }

    /// How many items H and R begin with in common.
    pub(super) fn common(&self) -> usize {
        let shorter = self.stored.len().min(self.sent.len());
        (0..shorter).take_while(|&at| same((&self.stored, at), (self.sent, at))).count()
    }

    /// Whether R begins with all of H, and there is an H, and goes on.
    pub(super) fn resends(&self, common: usize) -> bool {
        common > 0 && common == self.stored.len() && common < self.sent.len()
    }

    /// The longest tail of H, short of all, that holds an item of the model and that R begins with: where it
    /// begins, and how many items it has.
    pub(super) fn tail(&self) -> Option<(Cut, usize)> {
        let longest = self.stored.len().min(self.sent.len()).saturating_sub(1);
        let from = self.stored.len() - longest;
        let matched = self.longest_overlap(from)?;
        let begin = self.stored.len() - matched;
        let tail = &self.stored.items[begin..];
        tail.iter().any(|item| item.author() == Author::Model).then(|| (self.cut_at(begin), matched))
    }

    /// Where the last turn of H ends that R holds wholly when they begin with `common` items in common, and how many
    /// items H has up to there.
    pub(super) fn last_whole_turn(&self, common: usize) -> Option<(Place, usize)> {
        let whole = self.ends.partition_point(|end| *end <= common).checked_sub(1)?;
        Some((self.path.place(whole)?, self.ends[whole]))
    }

    /// The length of the longest beginning of R that ends H (Knuth, Morris and Pratt), looking at H from
    /// `from` on; linear in what it looks at.
    fn longest_overlap(&self, from: usize) -> Option<usize> {
        let sent = |at: usize| self.sent.digest(at);
        let borders = borders(self.stored.len() - from, &sent);
        let mut matched = 0;
        for at in from..self.stored.len() {
            matched = advance(matched, self.stored.digest(at), &borders, &sent);
        }
        (matched > 0).then_some(matched)
    }

    fn cut_at(&self, item: usize) -> Cut {
        let turns = self.ends.partition_point(|end| *end <= item);
        let begin = turns.checked_sub(1).map_or(0, |before| self.ends[before]);
        Cut { turns, items: item - begin }
    }
}

/// For each beginning of the pattern, the length of its longest proper beginning that also ends it.
fn borders(len: usize, pattern: &dyn Fn(usize) -> Canonical) -> Vec<usize> {
    let mut borders = Vec::with_capacity(len);
    let mut matched = 0;
    for at in 0..len {
        if at > 0 {
            matched = advance(matched, pattern(at), &borders, pattern);
        }
        borders.push(matched);
    }
    borders
}

/// How much of the pattern is matched after one more item, given the borders of its first items.
fn advance(
    mut matched: usize,
    next: Canonical,
    borders: &[usize],
    pattern: &dyn Fn(usize) -> Canonical,
) -> usize {
    while matched > 0 && (matched == borders.len() || pattern(matched) != next) {
        matched = borders[matched - 1];
    }
    if pattern(matched) == next { matched + 1 } else { matched }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::history::{
        Log, Parent, Turn,
        fixtures::{assistant, canonical, respaced, turn, user},
    };

    proptest! {
        /// With two words only, conversations repeat themselves all the time.
        #[test]
        fn the_tail_is_the_longest_that_naive_search_finds(
            turns in prop::collection::vec((1_usize..3, any::<u8>()), 1..7),
            rest in prop::collection::vec((any::<bool>(), any::<bool>()), 1..14),
            aligned in 0_usize..20,
        ) {
            let word = |bit: bool| if bit { "x" } else { "y" };
            let log: Log = turns
                .iter()
                .map(|(users, bits)| {
                    let sent: Vec<_> = (0..*users).map(|at| user(word(bits >> at & 1 == 1))).collect();
                    turn(Parent::Previous, &sent, assistant(word(bits >> 7 == 1)))
                })
                .collect();
            let stored: Vec<_> = log.turns().flat_map(Turn::items).collect();
            // The end of the history, so that there often is something to find, and then anything.
            let mut sent: Vec<_> = stored[stored.len() - aligned.min(stored.len())..].iter().map(respaced).collect();
            sent.extend(rest.iter().map(|(asks, bit)| if *asks { user(word(*bit)) } else { assistant(word(*bit)) }));

            let said = |items: &[Item]| items.iter().map(canonical).collect::<Vec<_>>();
            let (h, r) = (said(&stored), said(&sent));
            let naive = (1..h.len().min(r.len())).rev().find(|len| h[h.len() - len..] == r[..*len]);

            let digests = Digests::new(sent.iter().cloned(), &canonical);
            let compared = Comparison::new(log.path(), &digests);
            let found = compared.tail();
            prop_assert_eq!(found.map(|(_, len)| len), naive);
            if let Some((cut, len)) = found {
                let before: usize = log.turns().take(cut.turns).map(Turn::len).sum();
                prop_assert_eq!(before + cut.items, h.len() - len);
                prop_assert!(cut.items < log.turns().nth(cut.turns).map_or(0, Turn::len), "a cut at a border is between turns");
            }
            let common = h.iter().zip(&r).take_while(|(h, r)| h == r).count();
            prop_assert_eq!(compared.common(), common);
            prop_assert_eq!(compared.resends(common), r.len() > h.len() && r.starts_with(&h));
        }
    }
}
