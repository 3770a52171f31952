use bytes::Bytes;

use super::buffer_budget::BufferBudget;
use crate::history::Item;

/// Items of at most this number of bytes together are copied, whatever the size of their body: its buffer may be
/// larger than the body.
const SMALL: usize = 8 * 1024;

/// Copies items that are kept until a reply has ended, which may take minutes, so that their body need not stay.
///
/// They are left as they are where they make up most of the body, or where there is no room for both.
pub(crate) fn detached(items: &[Item], body: usize, room: &BufferBudget) -> Vec<Item> {
    if items.is_empty() {
        return Vec::new();
    }
    let bytes: usize = items.iter().map(|item| item.raw().len()).sum();
    let mut held = room.hold();
    if bytes > SMALL.max(body / 2) || held.grow(bytes).is_err() {
        return items.to_vec();
    }
    let mut copy = Vec::with_capacity(bytes);
    items.iter().for_each(|item| copy.extend_from_slice(item.raw()));
    let mut copy = held.keep(Bytes::from(copy));
    let own = |item: &Item| Item::new(copy.split_to(item.raw().len()), item.about().clone());
    items.iter().map(own).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::{
        body::buffer_budget::BufferFull,
        history::{About, Author},
    };

    const KIB: usize = 1024;

    fn items(sizes: &[usize]) -> Vec<Item> {
        let item = |size: &usize| {
            Item::new(Bytes::from(vec![b'0' + sizes.len() as u8; *size]), About::new(Author::User))
        };
        sizes.iter().map(item).collect()
    }

    fn are_copies(one: &[Item], other: &[Item]) -> bool {
        assert_eq!(one, other, "they say something else");
        one.iter().zip(other).all(|(one, other)| one.raw().as_ptr() != other.raw().as_ptr())
    }

    #[test]
    fn copies_have_room_of_their_own_until_the_last_is_gone() {
        let room = BufferBudget::new(4 * KIB);
        let sent = items(&[KIB, 2 * KIB]);
        let mut kept = detached(&sent, 100 * KIB, &room);
        assert!(are_copies(&kept, &sent));
        assert_eq!(room.hold().grow(2 * KIB), Err(BufferFull), "nobody counts them");
        kept.remove(0);
        assert_eq!(room.hold().grow(2 * KIB), Err(BufferFull), "the other one is there");
        drop(kept);
        room.hold().grow(4 * KIB).unwrap();
    }

    #[test]
    fn what_would_free_little_or_finds_no_room_stays_as_it_is() {
        let room = BufferBudget::new(1 << 20);
        let most = items(&[100 * KIB, KIB]);
        assert!(!are_copies(&detached(&most, 150 * KIB, &room), &most), "most of the body");
        assert!(are_copies(&detached(&most, 250 * KIB, &room), &most), "less than half of it");
        let small = items(&[SMALL]);
        assert!(are_copies(&detached(&small, SMALL, &room), &small), "a buffer may be behind it");
        assert!(!are_copies(&detached(&small, SMALL, &BufferBudget::new(KIB)), &small), "there is no room");
        assert!(detached(&[], KIB, &room).is_empty());
    }
}
