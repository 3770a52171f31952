//! 16 bytes as 32 digits, and back.

use redis::{RedisWrite, ToRedisArgs, ToSingleRedisArg};

/// 32 lower-case digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Hex([u8; 32]);

pub(super) fn hex(bytes: &[u8; 16]) -> Hex {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [0; 32];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    Hex(digits)
}

impl Hex {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl ToRedisArgs for Hex {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        out.write_arg(&self.0);
    }
}

impl ToSingleRedisArg for Hex {}

/// The bytes of exactly 32 digits.
pub(super) fn unhex(text: &str) -> Option<[u8; 16]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    };
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    (text.len() == 32).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let bytes: [u8; 16] = std::array::from_fn(|place| place as u8 * 17);
        assert_eq!(hex(&bytes).as_str(), "00112233445566778899aabbccddeeff");
        assert_eq!(unhex(hex(&bytes).as_str()), Some(bytes));
        let digits = "0".repeat(32);
        for wrong in
            [&digits[1..], &format!("{digits}0"), &format!("{digits}00"), &digits.replacen('0', "g", 1)]
        {
            assert_eq!(unhex(wrong), None, "{wrong}");
        }
    }
}
