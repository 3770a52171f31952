use tower_session_memory::store::HistoryStore;

use crate::servers::Redis;
pub(crate) use crate::turns::{key, say, turn};

/// What was said in a session.
pub(crate) async fn texts(store: &impl HistoryStore, id: &str) -> Vec<String> {
    crate::turns::texts(store, &key(id)).await
}

/// The user that the documentation names.
const RIGHTS: &str = "~session-memory:* +eval +evalsha +get +getrange +strlen +append +setrange +set +del \
    +persist +pexpire +pttl +time +zadd +zrem +zscore +zcount +zremrangebyscore +zremrangebyrank +zrevrangebyscore +hello \
    +select +ping";

/// Makes the user `memory` with the password `pass@word` and these rights besides.
pub(crate) fn allow(server: &Redis, more: &str) {
    let mut args = vec!["acl", "setuser", "memory", "on", ">pass@word"];
    args.extend(RIGHTS.split_whitespace().chain(more.split_whitespace()));
    assert_eq!(server.cli(&args), "OK");
}
