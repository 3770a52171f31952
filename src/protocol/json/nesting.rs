//! Where a JSON object or array ends, found while its bytes arrive.

use memchr::memchr2;

use super::text;

/// Follows brackets and strings. It does not validate: of two texts that balance, one may be no JSON.
#[derive(Debug, Clone, Default)]
pub(crate) struct Nesting {
    depth: usize,
    string: bool,
    escaped: bool,
    closed: bool,
}

impl Nesting {
    /// Whether an object or array was opened and closed again. Nothing but white space can follow it, so a
    /// text that was closed is complete; a number or a word never is.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes the next bytes; answers the offset of the bracket that closes the first object or array.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while !self.closed && at < bytes.len() {
            if self.string && !self.escaped {
                // Most of a reply is text: skip to what can end it.
                at += memchr2(b'"', b'\\', &bytes[at..])?;
            }
            self.step(bytes[at]);
            if self.closed {
                return Some(at);
            }
            at += 1;
        }
        None
    }

    /// Takes JSON that was sent as the inside of a string literal (the arguments of a tool call). No escape
    /// sequence may be split between two calls.
    pub(crate) fn feed_escaped(&mut self, interior: &str) {
        let mut bytes = interior.bytes().enumerate();
        while let Some((at, byte)) = bytes.next() {
            if byte != b'\\' {
                self.step(byte);
                continue;
            }
            match bytes.next() {
                Some((_, escaped @ (b'"' | b'\\' | b'/'))) => self.step(escaped),
                Some((_, b'u')) => {
                    let unit = text::unit(&interior[at..]).and_then(|unit| u8::try_from(unit).ok());
                    self.step(unit.unwrap_or(b'?'));
                    bytes.nth(3);
                }
                _ => self.step(b' '),
            }
        }
    }

    fn step(&mut self, byte: u8) {
        if self.string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.string = false,
                _ => {}
            }
            return;
        }
        match byte {
            b'"' => self.string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.closed |= self.depth == 0;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_the_bracket_that_closes_the_first_one() {
        for (text, end) in [
            ("{}", Some(1)),
            (r#" {"a":[1,{}],"b":"}\"}"} {"#, Some(23)),
            (r#"{"a":"\\"}"#, Some(9)),
            (r#"{"a":"\"}"#, None),
            ("{[}", None),
            ("12", None),
            ("\"{}\"", None),
        ] {
            assert_eq!(Nesting::default().feed(text.as_bytes()), end, "{text}");
            let mut bytewise = Nesting::default();
            let found = text.bytes().position(|byte| bytewise.feed(&[byte]).is_some());
            assert_eq!(found, end, "byte by byte: {text}");
        }
    }

    #[test]
    fn arguments_are_followed_through_their_escapes() {
        for (interior, closed) in [
            (r#"{\"a\":\"}\\\"}\"}"#, true),
            (r#"{\"a\":\"}\\\"}"#, false),
            (r"{\u0022a\u0022:1\u007d", true),
            (r"{\u0022}\u0022", false),
            (r"\n{\n}\u12", true),
        ] {
            let mut nesting = Nesting::default();
            nesting.feed_escaped(interior);
            assert_eq!(nesting.is_closed(), closed, "{interior}");
        }
    }
}
