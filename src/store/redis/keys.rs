//! The names of keys.

use sha2::{Digest, Sha256};

use super::hex::hex;
use crate::{
    session::{Principal, SessionId, SessionKey},
    store::Scope,
};

/// What every key begins with.
#[derive(Clone)]
pub(super) struct Keys {
    prefix: String,
    /// The number of listings of a namespace's principals, which share the work of a Cluster.
    shards: u8,
}

impl Keys {
    /// The prefix holds no brace: the first pair of a key decides on its hash slot.
    pub(super) fn new(prefix: String, in_cluster: bool) -> Self {
        Self { prefix, shards: if in_cluster { SHARDS } else { 1 } }
    }

    /// A session's log. The digest in braces spreads sessions evenly over a cluster, whatever their ids; what
    /// follows keeps any two apart.
    pub(super) fn log(&self, key: &SessionKey) -> String {
        let digest = hex(key.digest().as_bytes());
        [self.prefix.as_str(), LOG, digest.as_str(), "}:", &key.encode()].concat()
    }

    /// The session whose log stands under this name.
    pub(super) fn session(&self, name: &str) -> Option<SessionKey> {
        let rest = name.strip_prefix(&self.prefix)?.strip_prefix(LOG)?;
        let (_, encoded) = rest.split_at_checked(32)?;
        let (namespace, rest) = part(encoded.strip_prefix("}:")?)?;
        let (principal, id) = part(rest)?;
        let id = SessionId::from_bytes(id.as_bytes()).ok()?;
        let key = SessionKey::new(namespace, Principal::new(principal), id);
        (self.log(&key) == name).then_some(key)
    }

    /// A pattern of the names of a namespace's logs, or of a principal's in it.
    pub(super) fn logs_of(&self, namespace: &str, principal: Option<&str>) -> String {
        let mut pattern = literal(&[self.prefix.as_str(), LOG].concat());
        pattern.push_str(&"?".repeat(32));
        pattern.push_str("}:");
        for part in [Some(namespace), principal].into_iter().flatten() {
            pattern.push_str(&literal(&format!("{}:{part}:", part.len())));
        }
        pattern.push('*');
        pattern
    }

    /// The listing of principals that this one is in.
    pub(super) fn principals_of(&self, namespace: &str, principal: &str) -> String {
        let shard = match self.shards {
            1 => 0,
            shards => Sha256::digest(principal.as_bytes())[0] % shards,
        };
        self.principals(namespace, shard)
    }

    /// All listings of a namespace's principals.
    pub(super) fn all_principals(&self, namespace: &str) -> Vec<String> {
        (0..self.shards).map(|shard| self.principals(namespace, shard)).collect()
    }

    fn principals(&self, namespace: &str, shard: u8) -> String {
        format!("{}:principals:{{{shard}}}:{namespace}", self.prefix)
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

const LOG: &str = ":log:{";
const SHARDS: u8 = 16;

/// The first part of an encoding that begins with its length, and what follows it.
fn part(encoded: &str) -> Option<(&str, &str)> {
    let (length, rest) = encoded.split_once(':')?;
    let (part, rest) = rest.split_at_checked(length.parse().ok()?)?;
    Some((part, rest.strip_prefix(':')?))
}

/// A pattern that matches this text alone.
fn literal(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for char in text.chars() {
        if matches!(char, '*' | '?' | '[' | ']' | '\\') {
            pattern.push('\\');
        }
        pattern.push(char);
    }
    pattern
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back_as_its_session() {
        let keys = Keys::new("session-memory".to_owned(), true);
        for (namespace, principal, id) in [("", "", "a"), ("a:b", "1:ä{}", "x:y"), ("n*", "p\\?", "[i]")] {
            let key = SessionKey::new(namespace, Principal::new(principal), id.parse().unwrap());
            let name = keys.log(&key);
            assert!(keys.session(&name) == Some(key), "{name}");
            assert!(keys.session(&name[1..]).is_none());
            assert!(keys.session(&name.replacen(":log:{", ":log:{0", 1)).is_none());
        }
        let pattern = keys.logs_of("n*", Some("p\\?"));
        let wildcards = "?".repeat(32);
        assert_eq!(
            pattern,
            format!(r"session-memory:log:{{{wildcards}}}:2:n\*:3:p\\\?:*"),
            "names hold no wildcard"
        );
    }
}
