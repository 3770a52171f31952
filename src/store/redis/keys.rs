//! The names of keys.

use sha2::{Digest, Sha256};

use super::hex::hex;
use crate::{session::SessionKey, store::Scope};

/// What every key begins with.
#[derive(Clone)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    /// The prefix holds no brace: the first pair of a key decides on its hash slot.
    pub(super) fn new(prefix: String) -> Self {
        Self { prefix }
    }

    /// A session's log. The digest in braces spreads sessions evenly over a cluster, whatever their ids; what
    /// follows keeps any two apart.
    pub(super) fn log(&self, key: &SessionKey) -> String {
        let digest = hex(key.digest().as_bytes());
        [self.prefix.as_str(), ":log:{", digest.as_str(), "}:", &key.encode()].concat()
    }

    /// The listing of a principal's sessions.
    pub(super) fn listing(&self, namespace: &str, principal: &str) -> String {
        let encoded = [&namespace.len().to_string(), ":", namespace, ":", principal].concat();
        let whole = Sha256::digest(encoded.as_bytes());
        let mut digest = [0; 16];
        digest.copy_from_slice(&whole[..16]);
        [self.prefix.as_str(), ":list:{", hex(&digest).as_str(), "}:", &encoded].concat()
    }

    pub(super) fn listing_of(&self, scope: &Scope) -> String {
        self.listing(&scope.namespace, scope.principal.as_str())
    }
}
