//! What the servers' own settings make of an acknowledgement.

use redis::{FromRedisValue, Value};

use super::{Shared, link::Ask};
use crate::store::{Durability, StoreError};

impl Shared {
    pub(super) async fn durability(&self) -> Result<Durability, StoreError> {
        let (Some(files), Some(syncs)) =
            (self.setting("appendonly").await?, self.setting("appendfsync").await?)
        else {
            return Ok(Durability::Unknown);
        };
        Ok(level(&files, &syncs, self.replicas.is_some()))
    }

    /// What every server says; `None` when the user may not ask.
    async fn setting(&self, name: &str) -> Result<Option<Vec<String>>, StoreError> {
        let mut get = redis::cmd("CONFIG");
        get.arg("GET").arg(name);
        match self.link().call(&Ask::Every(&get), self.limits).await {
            Ok((value, _)) => {
                let mut values = Vec::new();
                collect(&value, name, &mut values);
                Ok(Some(values).filter(|values| !values.is_empty()))
            }
            Err(error) if error.is_transient() => Err(error),
            Err(_) => Ok(None),
        }
    }
}

/// The least that any of the servers does.
fn level(files: &[String], syncs: &[String], replicated: bool) -> Durability {
    if files.iter().any(|appendonly| appendonly != "yes") {
        return Durability::None;
    }
    if replicated {
        return Durability::Replicated;
    }
    let level = |appendfsync: &String| match appendfsync.as_str() {
        "always" => Durability::Fsync,
        "everysec" => Durability::AboutOneSecond,
        "no" => Durability::Process,
        _ => Durability::Unknown,
    };
    syncs.iter().map(level).min().unwrap_or(Durability::Unknown)
}

/// Finds a setting's values in an answer: a map or a list of pairs, within one entry for each server if there
/// are several.
fn collect(value: &Value, name: &str, values: &mut Vec<String>) {
    let mut pair = |key: &Value, value: &Value| match String::from_redis_value_ref(key) {
        Ok(key) if key == name => values.extend(String::from_redis_value_ref(value)),
        _ => collect(value, name, values),
    };
    match value {
        Value::Map(entries) => entries.iter().for_each(|(key, value)| pair(key, value)),
        Value::Array(items) => items.chunks_exact(2).for_each(|items| pair(&items[0], &items[1])),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weakest_server_decides() {
        let say = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
        let of = |files: &[&str], syncs: &[&str], replicated| level(&say(files), &say(syncs), replicated);
        assert_eq!(of(&["yes"], &["always"], false), Durability::Fsync);
        assert_eq!(of(&["yes", "yes"], &["always", "everysec"], false), Durability::AboutOneSecond);
        assert_eq!(of(&["yes"], &["no"], false), Durability::Process);
        assert_eq!(of(&["yes", "no"], &["always", "always"], false), Durability::None);
        assert_eq!(of(&["yes"], &["everysec"], true), Durability::Replicated);
        assert_eq!(
            of(&["no"], &["always"], true),
            Durability::None,
            "a primary that restarts empties its replicas"
        );
        assert_eq!(of(&["yes"], &["sometimes"], false), Durability::Unknown);
    }
}
