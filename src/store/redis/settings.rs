//! What the servers' own settings make of an acknowledgement, and whether they let themselves be used.

use std::{error::Error, sync::PoisonError};

use futures_util::future::try_join_all;
use redis::{FromRedisValue, RedisError, Value};

use super::{
    OpenProblem, Shared,
    error::is_in_cluster,
    hex,
    link::RedisCall,
    script::{self, Invocation},
    timeouts::Timeouts,
};
use crate::{
    session::{Principal, SessionKey},
    store::{Durability, Epoch, StoreError},
};

/// What the servers say of each setting; `None` when the user may not ask.
type Settings = [Option<Vec<String>>; 5];

const NAMES: [&str; 5] =
    ["appendonly", "appendfsync", "maxmemory", "maxmemory-policy", "min-replicas-to-write"];

impl Shared {
    pub(super) async fn durability(&self) -> Result<Durability, StoreError> {
        let settings = try_join_all(NAMES.map(|name| self.setting(name))).await?;
        let Ok(settings) = Settings::try_from(settings) else { return Ok(Durability::Unknown) };
        self.log_settings(&settings);
        Ok(level(&settings, self.replicas.is_some(), self.fails_over))
    }

    /// Logs what was read, when it is not what was logged last.
    fn log_settings(&self, settings: &Settings) {
        let said = |(name, values): (&str, &Option<Vec<String>>)| {
            let values = values.as_ref().map_or_else(|| "?".to_owned(), |values| values.join(","));
            format!("{name}={values}")
        };
        let read = NAMES.into_iter().zip(settings).map(said).collect::<Vec<_>>().join(" ");
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if *logged == read {
            return;
        }
        tracing::info!("the settings of the session store's servers: {read}");
        if evicts(settings) {
            tracing::warn!(
                "the session store's server removes sessions when its memory runs out: \
                 set maxmemory-policy to noeviction"
            );
        }
        *logged = read;
    }

    /// What every server says; `None` when the user may not ask.
    async fn setting(&self, name: &str) -> Result<Option<Vec<String>>, StoreError> {
        let mut get = redis::cmd("CONFIG");
        get.arg("GET").arg(name);
        match self.link().call(&RedisCall::Every(&get), self.limits).await {
            Ok((value, _)) => {
                let mut values = Vec::new();
                collect(&value, name, &mut values);
                Ok(Some(values).filter(|values| !values.is_empty()))
            }
            Err(error) if error.is_transient() => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Loads a session that does not exist, so that a start fails where every request would. What may pass by itself
    /// does not count.
    pub(super) async fn probe(&self) -> Result<(), OpenProblem> {
        let limits = Timeouts { call: self.limits.attempt, ..self.limits };
        let Ok(id) = "probe".parse() else { return Ok(()) };
        let none = SessionKey::new("", Principal::new("probe"), id);
        // Two keys in two slots: the nodes of a Cluster refuse that, whichever slots they serve.
        let load = Invocation::new(&script::LOAD, &self.written_keys(&none))
            .arg(hex(none.digest().as_bytes()))
            .arg(hex(Epoch::UNBORN.as_bytes()))
            .arg("-1")
            .arg("0".repeat(32))
            .arg("0");
        let mut wait = redis::cmd("WAIT");
        wait.arg(0).arg(1);
        let mut asks = vec![RedisCall::Script(&load)];
        if self.replicas.is_some() {
            asks.push(RedisCall::Command(&wait));
        }
        for ask in asks {
            match self.link().call(&ask, limits).await {
                Err(error) if says_cluster(&error) => {
                    let why = "this server is part of a Cluster: the URL begins with redis-cluster://";
                    return Err(OpenProblem::Settings(why));
                }
                Err(error) if !error.is_transient() => return Err(OpenProblem::Connect(error)),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(())
    }
}

fn says_cluster(error: &StoreError) -> bool {
    error
        .source()
        .and_then(|cause| cause.downcast_ref::<std::sync::Arc<RedisError>>())
        .is_some_and(|error| is_in_cluster(error))
}

/// Whether a server makes room by removing what it holds.
fn evicts([_, _, most, policy, _]: &Settings) -> bool {
    let any = |values: &Option<Vec<String>>, is: fn(&String) -> bool| values.iter().flatten().any(is);
    any(most, |bytes| bytes != "0") && any(policy, |policy| policy != "noeviction")
}

/// The least that any of the servers does.
fn level(settings: &Settings, replicated: bool, fails_over: bool) -> Durability {
    let [Some(files), Some(syncs), ..] = settings else { return Durability::Unknown };
    if files.iter().any(|appendonly| appendonly != "yes") || evicts(settings) {
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
    let synced = syncs.iter().map(level).min().unwrap_or(Durability::Unknown);
    // The server that takes over may lack what the disk of the other one holds.
    if fails_over { synced.min(Durability::AboutOneSecond) } else { synced }
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

    fn of(files: &[&str], syncs: &[&str], memory: [&str; 2]) -> Settings {
        let say = |values: &[&str]| Some(values.iter().map(|value| (*value).to_owned()).collect());
        [say(files), say(syncs), say(&memory[..1]), say(&memory[1..]), say(&["0"])]
    }

    const ROOM: [&str; 2] = ["0", "noeviction"];

    #[test]
    fn the_weakest_server_decides() {
        let of =
            |files: &[&str], syncs: &[&str], replicated| level(&of(files, syncs, ROOM), replicated, false);
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

    #[test]
    fn a_failover_may_lose_what_is_on_disk() {
        let of = |sync: &str, replicated| level(&of(&["yes"], &[sync], ROOM), replicated, true);
        assert_eq!(of("always", false), Durability::AboutOneSecond);
        assert_eq!(of("no", false), Durability::Process);
        assert_eq!(of("always", true), Durability::Replicated);
    }

    #[test]
    fn a_server_that_evicts_keeps_nothing() {
        let of = |memory| level(&of(&["yes"], &["always"], memory), false, false);
        assert_eq!(of(["1000000", "allkeys-lru"]), Durability::None);
        assert_eq!(of(["1000000", "volatile-ttl"]), Durability::None);
        assert_eq!(of(["0", "allkeys-lru"]), Durability::Fsync, "memory that has no bound");
        assert_eq!(of(["1000000", "noeviction"]), Durability::Fsync, "it refuses instead");
    }
}
