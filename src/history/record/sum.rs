//! The checksum that ends a record's header: CRC-32C of every other byte of the record.
//!
//! ```text
//! {"v":"1.0", … ,"sum":"1a2b3c4d"}⏎body
//! ```
//!
//! Damage on a disk or on the way is found before a conversation is spliced from it. The member is the header's last,
//! so that it is checked without parsing the header. A record without it was written by hand, and is not checked.

use std::ops::Range;

use crate::session::hex;

const BEGIN: &[u8] = b",\"sum\":\"";
const DIGITS: usize = 8;
const END: &[u8] = b"\"}";

/// Bytes of the member, of the brace that ends the header, and of its line feed.
pub(super) const LEN: usize = BEGIN.len() + DIGITS + END.len() + 1;

/// Ends a header that has no closing brace yet. Answers what [`fill`] takes once the body is there.
pub(super) fn reserve(header: &mut Vec<u8>) -> Range<usize> {
    let begin = header.len();
    header.extend_from_slice(BEGIN);
    header.extend_from_slice(&[b'0'; DIGITS]);
    header.extend_from_slice(END);
    header.push(b'\n');
    begin..header.len()
}

/// Writes the checksum of a record into the place that was reserved for it.
pub(super) fn fill(record: &mut [u8], reserved: Range<usize>) {
    let digits = digits(record, &reserved);
    let at = reserved.start + BEGIN.len();
    record[at..at + DIGITS].copy_from_slice(&digits);
}

/// Whether the checksum of a record, whose header ends at this line feed, is the one that its header names.
pub(super) fn holds(record: &[u8], line_feed: usize) -> bool {
    let Some(begin) = (line_feed + 1).checked_sub(LEN) else { return true };
    let Some(named) = record[begin..line_feed].strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END))
    else {
        return true;
    };
    named == digits(record, &(begin..line_feed + 1))
}

/// The checksum of all but these bytes.
fn digits(record: &[u8], but: &Range<usize>) -> [u8; DIGITS] {
    let sum = crc32c::crc32c_append(crc32c::crc32c(&record[..but.start]), &record[but.end..]);
    let mut digits = [0; DIGITS];
    hex(&sum.to_be_bytes(), &mut digits);
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_found_unless_it_hides_the_checksum() {
        let mut record = br#"{"v":"1.0""#.to_vec();
        let reserved = reserve(&mut record);
        record.extend_from_slice(b"\nbody");
        fill(&mut record, reserved.clone());
        let line_feed = reserved.end - 1;
        assert!(holds(&record, line_feed));
        let name = reserved.start..reserved.start + BEGIN.len();
        let end = reserved.end - 1 - END.len()..reserved.end;
        for bit in 0..record.len() * 8 {
            let mut damaged = record.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let hidden = name.contains(&(bit / 8)) || end.contains(&(bit / 8));
            assert_eq!(holds(&damaged, line_feed), hidden, "bit {bit}");
        }
    }
}
