//! 16 bytes as 32 hex digits, and back, as `uuid` writes and reads them.

use redis::{RedisWrite, ToRedisArgs, ToSingleRedisArg};
use uuid::Uuid;

/// 32 lower-case digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Hex([u8; 32]);

pub(super) fn hex(bytes: &[u8; 16]) -> Hex {
    let mut digits = [0; 32];
    Uuid::from_bytes(*bytes).simple().encode_lower(&mut digits);
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
    // `uuid` reads other notations, which are longer.
    let uuid = Uuid::try_parse(text).ok().filter(|_| text.len() == 32)?;
    Some(uuid.into_bytes())
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
