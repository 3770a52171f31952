use std::time::Duration;

use tower_session_memory::{
    session::Principal,
    store::{Erased, HistoryStore, Page, ReadOptions, RedisStore, Scope},
};

use crate::servers::Redis;
pub(crate) use crate::turns::{key, say, turn};

/// What was said in a session.
pub(crate) async fn texts(store: &impl HistoryStore, id: &str) -> Vec<String> {
    crate::turns::texts(store, &key(id)).await
}

/// The rights of the user that the documentation names.
fn rights() -> Vec<&'static str> {
    let documentation = include_str!("../../../src/store/redis/mod.rs");
    let (_, rights) = documentation.split_once("ACL SETUSER memory on >password ").unwrap();
    let (rights, _) = rights.split_once('`').unwrap();
    rights.split_whitespace().filter(|word| *word != "//!").collect()
}

/// Makes the user `memory` with the password `pass@word` and these rights besides.
pub(crate) fn allow(server: &Redis, more: &str) {
    let user = vec!["acl", "setuser", "memory", "on", ">pass@word"];
    let args = [user, rights(), more.split_whitespace().collect()].concat();
    assert_eq!(server.cli(&args), "OK");
}

/// Whether a script was refused a command. What is refused to a script need not fail its call.
pub(crate) fn refused_a_script(server: &Redis) -> bool {
    server.cli(&["acl", "log"]).lines().any(|line| line == "lua")
}

/// The principal of the sessions of [`key`].
pub(crate) fn scope() -> Scope {
    Scope { namespace: "test".to_owned(), principal: Principal::anonymous() }
}

/// Takes steps of the principal's erasure after this one, to the end or until this number of sessions is gone; their
/// number, and the step that follows.
pub(crate) async fn erase(store: &RedisStore, mut after: Option<String>, most: u64) -> (u64, Option<String>) {
    let mut sessions = 0;
    loop {
        let page = Page::new(64.min(most as usize)).with_after(after);
        let Erased { sessions: more, next, .. } = store.delete_principal(&scope(), &page).await.unwrap();
        (sessions, after) = (sessions + more, next);
        if after.is_none() || sessions >= most {
            return (sessions, after);
        }
    }
}

/// Reads, lists and erases: what the tests of rights do besides turns.
pub(crate) async fn inspect_and_erase(store: &RedisStore) {
    let page = Page::new(64);
    say(store, &key("old"), "one").await;
    assert_eq!(store.read(&key("old"), &ReadOptions::new(0)).await.unwrap().records.len(), 1);
    assert_eq!(store.principals("test", &page).await.unwrap().principals.len(), 1);
    let mut page = Some(page);
    while let Some(now) = page.take() {
        let step = store.expire("test", Duration::ZERO, &now).await.unwrap();
        page = step.next.map(|next| Page::new(64).with_after(Some(next)));
    }
    assert!(store.sessions(&scope(), &Page::new(64)).await.unwrap().sessions.is_empty());
    for id in ["new", "newer"] {
        say(store, &key(id), "one").await;
    }
    assert_eq!(erase(store, None, u64::MAX).await, (2, None));
    assert!(store.principals("test", &Page::new(64)).await.unwrap().principals.is_empty());
}
