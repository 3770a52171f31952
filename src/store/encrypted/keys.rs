use std::{fmt, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::session::SessionKey;

/// The keys that records are sealed with and opened with.
///
/// As text, one key a line: an id and 32 random bytes in base64, separated by spaces. The first key seals, all
/// open. Empty lines and lines that begin with `#` do not count.
///
/// ```text
/// # openssl rand -base64 32
/// 2026-05 6RU8JcSCP1Q1F9d5bUz0pY3mV3q0Jx2T0p8m2qkQ0cE=
/// 2025-11 b0y3o4Xr0l0f0a2Jt6mP6o2Yx0e8m5l9V4B1b3b2c1M=
/// ```
///
/// An id is stored with every record: 1 to 32 letters, digits, dots, dashes and underscores. **It must never name
/// another key later.**
///
/// # Rotation
///
/// Put the new key last, on every replica; then first, on every replica. Keep the old one for as long as
/// sessions live that were written with it. Records are not sealed again.
///
/// # Memory
///
/// Keys are overwritten when they are dropped. `Debug` shows ids only.
#[derive(Clone)]
pub struct KeyRing {
    /// The first seals. Never empty, no id twice.
    keys: Arc<[MasterKey]>,
}

struct MasterKey {
    id: String,
    bytes: Zeroizing<[u8; 32]>,
}

/// Why a text is no [`KeyRing`]. It quotes no part of a key; lines count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidKeyRing {
    /// There is no key in it.
    #[error("there is no key in it")]
    Empty,
    /// A line is not an id and a key.
    #[error("line {0}: expected an id and a key, separated by a space")]
    Line(usize),
    /// An id is too long or has other characters.
    #[error("line {0}: the id of a key is 1 to 32 letters, digits, dots, dashes or underscores")]
    Id(usize),
    /// A key is not 32 bytes in base64.
    #[error("line {0}: a key is 32 bytes in base64, such as `openssl rand -base64 32` prints")]
    Key(usize),
    /// An id or a key is there twice.
    #[error("line {0}: the id or the key is there already")]
    Twice(usize),
}

impl KeyRing {
    /// Reads the keys from text.
    ///
    /// # Errors
    ///
    /// [`InvalidKeyRing`] when the text is not as described above.
    pub fn parse(text: &str) -> Result<Self, InvalidKeyRing> {
        let mut keys: Vec<MasterKey> = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (id, key) = line.split_once(char::is_whitespace).ok_or(InvalidKeyRing::Line(number))?;
            if !is_key_id(id) {
                return Err(InvalidKeyRing::Id(number));
            }
            let bytes = decode(key.trim()).ok_or(InvalidKeyRing::Key(number))?;
            if keys.iter().any(|key| key.id == id || *key.bytes == *bytes) {
                return Err(InvalidKeyRing::Twice(number));
            }
            keys.push(MasterKey { id: id.to_owned(), bytes });
        }
        if keys.is_empty() {
            return Err(InvalidKeyRing::Empty);
        }
        Ok(Self { keys: keys.into() })
    }

    /// The ids, the one that seals first.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|key| key.id.as_str())
    }

    /// The id of the key that seals, and what it is for this session.
    pub(super) fn sealing(&self, session: &SessionKey) -> (&str, Subkey) {
        let key = &self.keys[0];
        (&key.id, key.subkey(session))
    }

    pub(super) fn opening(&self, id: &str, session: &SessionKey) -> Option<Subkey> {
        self.keys.iter().find(|key| key.id == id).map(|key| key.subkey(session))
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing").field("ids", &self.ids().collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

/// The key of one session.
pub(super) type Subkey = Zeroizing<[u8; 32]>;

impl MasterKey {
    /// HKDF-Expand (RFC 5869, section 2.3) with SHA-256, to one block. The master key is random, so that it needs
    /// no extraction (section 3.3).
    fn subkey(&self, session: &SessionKey) -> Subkey {
        // A key of any length is accepted; the fallback is never taken.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&*self.bytes) else { return Subkey::default() };
        mac.update(LABEL);
        mac.update(session.encode().as_bytes());
        mac.update(&[1]);
        Zeroizing::new(mac.finalize().into_bytes().into())
    }
}

const LABEL: &[u8] = b"tower-session-memory record 1\0";

/// Whether a text may be the id of a key. What stands in a stored record may be anything.
pub(super) fn is_key_id(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
}

fn decode(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let bytes = Zeroizing::new(BASE64_STANDARD.decode(text).ok()?);
    let mut key = Zeroizing::new([0; 32]);
    if bytes.len() != key.len() {
        return None;
    }
    key.copy_from_slice(&bytes);
    Some(key)
}
