use std::{fmt, str::FromStr};

/// Name of a wire format: `openai.chat`. Stored with every turn.
///
/// 1 to 31 bytes of lower-case ASCII letters, digits, `.`, `_` and `-`. As cheap to copy as four words.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Format {
    name: [u8; Self::MAX],
    len: u8,
}

/// A name that is no name of a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("the name of a format has 1 to 31 bytes of a-z, 0-9, '.', '_' and '-'")]
pub struct InvalidFormat;

impl Format {
    const MAX: usize = 31;

    /// A format's name that is a literal.
    ///
    /// # Panics
    ///
    /// When the name is none, which is found at compile time where the result is a constant.
    #[must_use]
    pub const fn from_static(name: &'static str) -> Self {
        match Self::checked(name.as_bytes()) {
            Some(format) => format,
            None => panic!("the name of a format has 1 to 31 bytes of a-z, 0-9, '.', '_' and '-'"),
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Always ASCII: `checked` has looked.
        str::from_utf8(&self.name[..usize::from(self.len)]).unwrap_or_default()
    }

    const fn checked(name: &[u8]) -> Option<Self> {
        if name.is_empty() || name.len() > Self::MAX {
            return None;
        }
        let mut copy = [0; Self::MAX];
        let mut at = 0;
        while at < name.len() {
            if !matches!(name[at], b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-') {
                return None;
            }
            copy[at] = name[at];
            at += 1;
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most 31")]
        Some(Self { name: copy, len: name.len() as u8 })
    }
}

impl FromStr for Format {
    type Err = InvalidFormat;

    fn from_str(name: &str) -> Result<Self, InvalidFormat> {
        Self::checked(name.as_bytes()).ok_or(InvalidFormat)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_no_format_has_is_refused() {
        assert_eq!(
            "openai.chat".parse::<Format>().map(|format| format.to_string()),
            Ok("openai.chat".into())
        );
        for name in ["", "Chat", "a b", "ü", "a\"b", "abcdefghijklmnopqrstuvwxyz012345"] {
            assert_eq!(name.parse::<Format>(), Err(InvalidFormat), "{name}");
        }
    }
}
