//! The names of keys.

use sha2::{Digest, Sha256};

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
        format!("{}:log:{{{}}}:{}", self.prefix, key.digest().to_hex(), key.encode())
    }

    /// The listing of a principal's sessions.
    pub(super) fn listing(&self, namespace: &str, principal: &str) -> String {
        let encoded = format!("{}:{namespace}:{principal}", namespace.len());
        let digest = Sha256::digest(encoded.as_bytes());
        let digest: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        format!("{}:list:{{{digest}}}:{encoded}", self.prefix)
    }

    pub(super) fn listing_of(&self, scope: &Scope) -> String {
        self.listing(&scope.namespace, scope.principal.as_str())
    }
}
