//! The messages of a log as they are spliced.
//!
//! * What it saves: 92,900 of 202,100 instructions of a request with 200 turns, which else sends each item by itself
//!   (`cargo bench --profile cost --features proxy --bench cost -- 'layer: JSON, 200 turns'`).
//! * Without it: the path's items are sent one by one, with a comma between two: right as well, and linear in the turns.
//! * What holds it: `any_part_is_what_joining_its_texts_gives`, below, also while readers hold a piece that grows.

use std::{collections::VecDeque, mem, ops::Range};

use bytes::{BufMut, Bytes, BytesMut};

/// Texts below this number of bytes are joined; a longer one stays where it is.
const SMALL: usize = 4 * 1024;
/// The most that is joined to one piece.
const PIECE: usize = 64 * 1024;

/// Texts joined by commas, in a few long pieces, so that a history of thousands of turns is neither copied nor
/// walked to be sent. A place in it is the number of bytes before it, as if it were one piece.
#[derive(Clone, Default)]
pub(super) struct Joined {
    pieces: VecDeque<Piece>,
    end: u64,
}

#[derive(Clone)]
struct Piece {
    begin: u64,
    /// Whether more can be joined to it.
    small: bool,
    bytes: Bytes,
}

impl Joined {
    /// How many bytes a text of this length takes here at most, beside where it stands already: pieces have room for
    /// more, or for what was forgotten.
    pub(super) fn copied(length: usize) -> usize {
        if length < SMALL { 2 * (length + 1) } else { 0 }
    }

    /// Adds a text, and answers where it begins.
    ///
    /// The last piece grows in place while it has no reader; else it is copied, which has a bound.
    pub(super) fn push(&mut self, text: &Bytes) -> u64 {
        let begin = self.end;
        if text.is_empty() {
            return begin;
        }
        self.end += text.len() as u64 + 1;
        let small = text.len() < SMALL;
        let last = self.pieces.back_mut().filter(|last| small && last.small);
        match last.filter(|last| last.bytes.len() + 1 + text.len() <= PIECE) {
            Some(last) => {
                let mut bytes = unshared(mem::take(&mut last.bytes), 1 + text.len());
                bytes.put_u8(b',');
                bytes.put_slice(text);
                last.bytes = bytes.freeze();
            }
            None => self.pieces.push_back(Piece { begin, small, bytes: text.clone() }),
        }
        begin
    }

    /// What stands between two places, the comma before the second one aside. A comma is to stand between two
    /// pieces.
    pub(super) fn pieces(&self, range: Range<u64>) -> impl Iterator<Item = Bytes> {
        let first = self.pieces.partition_point(|piece| piece.end() <= range.start);
        self.pieces.range(first..).take_while(move |piece| piece.begin < range.end).map(move |piece| {
            let within =
                |place: u64| place.saturating_sub(piece.begin).min(piece.bytes.len() as u64) as usize;
            piece.bytes.slice(within(range.start)..within(range.end))
        })
    }

    /// Forgets what stands before a place; without one, everything.
    pub(super) fn trim(&mut self, begin: Option<u64>) {
        let begin = begin.unwrap_or(self.end);
        while self.pieces.front().is_some_and(|piece| piece.end() <= begin) {
            self.pieces.pop_front();
        }
        // What is forgotten of a piece never takes more than what is left of it.
        if let Some(first) = self.pieces.front_mut() {
            let gone = usize::try_from(begin.saturating_sub(first.begin)).unwrap_or(0);
            if gone > first.bytes.len() / 2 {
                *first = Piece { begin, bytes: Bytes::copy_from_slice(&first.bytes[gone..]), ..*first };
            }
        }
    }
}

impl Piece {
    /// Where it ends, with the comma after it.
    fn end(&self) -> u64 {
        self.begin + self.bytes.len() as u64 + 1
    }
}

/// The same bytes where more can be added.
fn unshared(bytes: Bytes, more: usize) -> BytesMut {
    bytes.try_into_mut().unwrap_or_else(|shared| {
        let mut copy = BytesMut::with_capacity(((shared.len() + more) * 2).min(PIECE));
        copy.extend_from_slice(&shared);
        copy
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_part_is_what_joining_its_texts_gives(
            lengths in prop::collection::vec(prop_oneof![1_usize..40, SMALL - 9..SMALL, SMALL..PIECE + 3], 1..24),
            cut in any::<prop::sample::Index>(),
            end in any::<prop::sample::Index>(),
            trimmed in any::<prop::sample::Index>(),
            reads in any::<bool>(),
        ) {
            let texts: Vec<Bytes> =
                lengths.iter().enumerate().map(|(at, len)| vec![b'a' + at as u8; *len].into()).collect();
            let mut joined = Joined::default();
            let mut begins = Vec::new();
            let mut readers = Vec::new();
            for text in &texts {
                begins.push(joined.push(text));
                if reads {
                    readers.push((joined.pieces(0..joined.end - 1).collect::<Vec<_>>(), begins.len()));
                }
            }
            let from = cut.index(texts.len());
            let to = from + end.index(texts.len() - from);
            joined.trim(Some(begins[trimmed.index(from + 1)]));
            let joined_up = |pieces: &[Bytes]| pieces.join(&b","[..]);
            let pieces: Vec<Bytes> = joined.pieces(begins[from]..begins[to] + texts[to].len() as u64).collect();
            prop_assert!(joined_up(&pieces) == joined_up(&texts[from..=to]));
            let bytes: usize = texts.iter().map(|text| text.len() + 1).sum();
            prop_assert!(pieces.len() <= 2 * bytes.div_ceil(SMALL) + 1, "{} pieces", pieces.len());
            let held: usize = joined.pieces.iter().map(|piece| piece.bytes.len()).sum();
            let kept: usize = texts[trimmed.index(from + 1)..].iter().map(|text| text.len() + 1).sum();
            prop_assert!(held <= 2 * kept, "{held} bytes are held for {kept}");
            for (read, count) in readers {
                prop_assert!(joined_up(&read) == joined_up(&texts[..count]), "a reader's bytes have changed");
            }
        }
    }
}
