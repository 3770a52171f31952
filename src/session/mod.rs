//! Identity of a request: its caller and its conversation.
//!
//! A [`SessionKey`] is the only name that a store ever sees. It joins a namespace (one per deployment or
//! tenant), a [`Principal`] (the caller) and a [`SessionId`] (the conversation), so that no caller can
//! reach a conversation of another by guessing its id.

mod extract;
mod principal;

pub(crate) use extract::X_SESSION_ID;
pub use extract::{ExtractSession, Header};
#[cfg(feature = "cookies")]
mod cookie;
#[cfg(feature = "cookies")]
pub use cookie::Cookie;
pub use principal::{Principal, PrincipalPolicy};

use std::{
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
    sync::Arc,
};

use sha2::{Digest, Sha256};

/// The name of one conversation: 1 to 128 bytes of visible ASCII (`0x21`–`0x7E`).
///
/// Its `Debug` shows no part of the id, so that a log line never carries one.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Arc<str>);

/// Why a byte string is no [`SessionId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSessionId {
    /// The id has no bytes.
    #[error("the session id is empty; it takes 1 to 128 bytes")]
    Empty,
    /// The id is longer than [`SessionId::MAX_LEN`].
    #[error("the session id has {0} bytes; at most 128 are accepted")]
    TooLong(usize),
    /// The id holds a space, a control character or a byte outside ASCII.
    #[error("the session id holds a byte outside visible ASCII (0x21 to 0x7E)")]
    InvalidByte,
    /// The request names more than one session.
    #[error("the request names two different session ids")]
    Ambiguous,
}

/// The operating system gave no random bytes, of which session ids are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("the operating system gave no random bytes")]
pub struct NoRandomBytes;

impl SessionId {
    /// The longest id that is accepted, in bytes.
    pub const MAX_LEN: usize = 128;

    /// Reads an id from raw header or cookie bytes.
    ///
    /// # Errors
    ///
    /// [`InvalidSessionId`] when the bytes are empty, too long, or not visible ASCII.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidSessionId> {
        if bytes.is_empty() {
            return Err(InvalidSessionId::Empty);
        }
        if bytes.len() > Self::MAX_LEN {
            return Err(InvalidSessionId::TooLong(bytes.len()));
        }
        match std::str::from_utf8(bytes) {
            Ok(text) if bytes.iter().all(u8::is_ascii_graphic) => Ok(Self(text.into())),
            _ => Err(InvalidSessionId::InvalidByte),
        }
    }

    /// A new id of 256 random bits, base64url without padding (43 characters).
    ///
    /// # Errors
    ///
    /// [`NoRandomBytes`] when the operating system gives none.
    pub fn random() -> Result<Self, NoRandomBytes> {
        use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes).map_err(|_| NoRandomBytes)?;
        Ok(Self(BASE64_URL_SAFE_NO_PAD.encode(bytes).into()))
    }

    /// The id as the client sent it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SessionId {
    type Err = InvalidSessionId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::from_bytes(text.as_bytes())
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionId").finish_non_exhaustive()
    }
}

/// What names a session in a store: namespace, principal and session id.
///
/// Insert one into a request's extensions to name the session outright: see [`ExtractSession`].
#[derive(Clone, PartialEq, Eq)]
pub struct SessionKey {
    namespace: Arc<str>,
    principal: Principal,
    id: SessionId,
    digest: KeyDigest,
}

/// 128 bits of SHA-256 over a key's encoding. Records carry it, so that a record of another session is
/// recognised; logs show its first eight hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyDigest([u8; 16]);

impl SessionKey {
    /// Joins the three parts.
    #[must_use]
    pub fn new(namespace: impl Into<Arc<str>>, principal: Principal, id: SessionId) -> Self {
        let namespace = namespace.into();
        let encoded = encode(&namespace, &principal, &id);
        let hash = Sha256::digest(encoded.as_bytes());
        let mut digest = [0; 16];
        digest.copy_from_slice(&hash[..16]);
        Self { namespace, principal, id, digest: KeyDigest(digest) }
    }

    /// The deployment or tenant that the session belongs to.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Whose session it is.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Which of the principal's sessions it is.
    #[must_use]
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// The key as one string, for stores that have flat keys.
    ///
    /// Namespace and principal are preceded by their length in bytes, so two different keys never have the
    /// same encoding.
    #[must_use]
    pub fn encode(&self) -> String {
        encode(&self.namespace, &self.principal, &self.id)
    }

    /// The digest that this session's records carry.
    #[must_use]
    pub fn digest(&self) -> KeyDigest {
        self.digest
    }
}

impl Hash for SessionKey {
    /// The digest tells keys apart as well as their parts do, and is shorter.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

fn encode(namespace: &str, principal: &Principal, id: &SessionId) -> String {
    let (principal, id) = (principal.as_str(), id.as_str());
    let mut encoded = String::with_capacity(namespace.len() + principal.len() + id.len() + 12);
    for part in [namespace, principal] {
        push_decimal(&mut encoded, part.len());
        encoded.push(':');
        encoded.push_str(part);
        encoded.push(':');
    }
    encoded.push_str(id);
    encoded
}

/// Adds a number's digits.
pub(crate) fn push_decimal(text: &mut String, number: usize) {
    if number >= 10 {
        push_decimal(text, number / 10);
    }
    text.push(char::from(b"0123456789"[number % 10]));
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionKey").field("digest", &self.digest).finish_non_exhaustive()
    }
}

impl KeyDigest {
    /// All 32 hex digits, as records hold them.
    #[must_use]
    pub fn to_hex(self) -> String {
        self.hex_digits().map(char::from).iter().collect()
    }

    /// The 16 bytes.
    #[cfg(feature = "redis")]
    pub(crate) fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// A byte to spread keys by.
    pub(crate) fn first_byte(self) -> u8 {
        self.0[0]
    }

    /// Whether this is the text that [`to_hex`](Self::to_hex) gives; every record of a load is asked.
    pub(crate) fn is_hex(self, text: &str) -> bool {
        self.hex_digits() == *text.as_bytes()
    }

    /// The same as [`to_hex`](Self::to_hex), as bytes.
    pub(crate) fn hex_digits(self) -> [u8; 32] {
        let mut digits = [0; 32];
        hex(&self.0, &mut digits);
        digits
    }
}

/// Writes the hex digits of these bytes, two for each.
pub(crate) fn hex(bytes: &[u8], digits: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

impl fmt::Display for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
