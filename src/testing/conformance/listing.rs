use std::time::Duration;

use super::{
    Harness,
    fixture::{Fixture, appended, turn_of_model},
};
use crate::{
    session::SessionKey,
    store::{HistoryStore, Page, Retention, Scope},
};

/// All pages of at most `limit` sessions each.
async fn pages<S: HistoryStore + 'static>(
    fixture: &Fixture<S>,
    scope: &Scope,
    limit: usize,
) -> Vec<Vec<(String, u64)>> {
    let mut pages = Vec::new();
    let mut after = None;
    loop {
        let page = Page::new(limit).with_after(after);
        let page = fixture.store.sessions(scope, &page).await.expect("a listing succeeds");
        pages.push(page.sessions.iter().map(|s| (s.id.as_str().to_owned(), s.turns)).collect());
        assert!(pages.len() < 100, "a listing ends");
        after = page.next;
        if after.is_none() {
            return pages;
        }
    }
}

async fn listed<S: HistoryStore + 'static>(fixture: &Fixture<S>, scope: &Scope) -> Vec<String> {
    pages(fixture, scope, 100).await.concat().into_iter().map(|(id, _)| id).collect()
}

pub(super) async fn sessions_are_listed_from_the_newest_page_by_page<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    let scope = fixture.scope("somebody");
    assert_eq!(pages(&fixture, &scope, 3).await, [[]], "no sessions are one empty page");
    let mut expected = Vec::new();
    for number in 0..7 {
        let id = format!("session-{number}");
        let texts = vec!["hi"; number % 3 + 1];
        fixture.say(&fixture.key(&id), &texts).await;
        expected.insert(0, (id, texts.len() as u64));
    }
    for limit in [1, 2, 3, 6, 7, 8, 1000] {
        let pages = pages(&fixture, &scope, limit).await;
        assert_eq!(pages.concat(), expected, "every session once, the newest first, in pages of {limit}");
        assert!(pages.iter().all(|page| page.len() <= limit), "no page is larger than {limit}");
        assert_eq!(pages.len(), 7_usize.div_ceil(limit), "the last page of {limit} says that it is the last");
    }
}

pub(super) async fn a_turn_moves_its_session_to_the_front<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    let scope = fixture.scope("somebody");
    for id in ["a", "b", "c"] {
        fixture.say(&fixture.key(id), &["hi"]).await;
    }
    fixture.say(&fixture.key("a"), &["again"]).await;
    fixture.load(&fixture.key("b")).await;
    assert_eq!(listed(&fixture, &scope).await, ["a", "c", "b"], "the most recently appended to comes first");
}

pub(super) async fn a_session_that_moves_while_pages_are_read_is_never_listed_twice<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    let scope = fixture.scope("somebody");
    for id in ["a", "b", "c", "d"] {
        fixture.say(&fixture.key(id), &["hi"]).await;
    }
    let mut found = Vec::new();
    let mut after = None;
    for moves in ["d", "b"] {
        let page = Page::new(2).with_after(after);
        let page = fixture.store.sessions(&scope, &page).await.expect("a listing succeeds");
        found.extend(page.sessions.iter().map(|session| session.id.as_str().to_owned()));
        after = page.next;
        fixture.say(&fixture.key(moves), &["again"]).await;
    }
    assert_eq!(found, ["d", "c", "b", "a"], "what did not move is listed once, in its order");
}

pub(super) async fn deleted_sessions_are_not_listed<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    let scope = fixture.scope("somebody");
    for id in ["a", "b", "c"] {
        fixture.say(&fixture.key(id), &["hi"]).await;
    }
    fixture.delete(&fixture.key("b")).await;
    fixture.delete(&fixture.key("never-there")).await;
    assert_eq!(listed(&fixture, &scope).await, ["c", "a"], "a deletion leaves nothing to list");
    fixture.say(&fixture.key("b"), &["anew"]).await;
    assert_eq!(listed(&fixture, &scope).await, ["b", "c", "a"], "a session that began anew is listed");
}

pub(super) async fn a_listing_is_of_one_principal_in_one_namespace<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    fixture.say(&fixture.key_of("one", "of-one"), &["hi"]).await;
    fixture.say(&fixture.key_of("two", "of-two"), &["hi"]).await;
    let elsewhere = Scope { namespace: format!("{}-2", fixture.namespace), ..fixture.scope("one") };
    let id = "elsewhere".parse().expect("the checks use valid ids");
    let key = SessionKey::new(elsewhere.namespace.as_str(), elsewhere.principal.clone(), id);
    fixture.say(&key, &["hi"]).await;
    assert_eq!(listed(&fixture, &fixture.scope("one")).await, ["of-one"]);
    assert_eq!(listed(&fixture, &fixture.scope("two")).await, ["of-two"]);
    assert_eq!(listed(&fixture, &elsewhere).await, ["elsewhere"]);
    assert_eq!(listed(&fixture, &fixture.scope("another")).await, [""; 0]);
}

pub(super) async fn a_page_that_no_listing_named_is_an_error<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    fixture.say(&fixture.key("a"), &["hi"]).await;
    for after in ["", "no such page", "\0", "';--", "-"] {
        let page = Page::new(10).with_after(after.to_owned());
        let answer = fixture.store.sessions(&fixture.scope("somebody"), &page).await;
        assert!(answer.is_err_and(|error| !error.is_transient()), "{after:?} names no page, now or later");
    }
}

pub(super) async fn a_listing_describes_each_session<H: Harness>(harness: &H) {
    let fixture = Fixture::with(harness, Retention::new().with_ttl(Duration::from_secs(3600))).await;
    let (key, scope) = (fixture.key("a"), fixture.scope("somebody"));
    let mut at = fixture.load(&key).await.cursor;
    let mut bytes = 0;
    for model in [Some("the-first"), Some("the-second"), None] {
        let turn = turn_of_model(&key, model);
        bytes += turn.bytes().len() as u64;
        at = appended(fixture.append(&key, &at, &turn).await);
        if model.is_some() {
            harness.pass(Duration::from_millis(1100)).await;
        }
    }
    let page = fixture.store.sessions(&scope, &Page::new(10)).await.expect("a listing succeeds");
    let session = &page.sessions[0];
    assert_eq!((session.id.as_str(), session.turns), ("a", 3));
    assert!(session.bytes >= bytes / 8, "{} bytes", session.bytes);
    let second = Duration::from_secs(1);
    let lived = session.updated_at.duration_since(session.created_at).expect("time goes on");
    assert!(lived >= 2 * second, "from the first turn to the newest: {lived:?}");
    let left = session.expires_at.expect("it expires").duration_since(session.updated_at).expect("later");
    // A server's clock and this one's may differ a little.
    assert!((3500..3700).contains(&left.as_secs()), "an hour after the newest turn: {left:?}");
    // A store reads its records unless a wrapper made other bytes of them.
    if session.bytes == bytes {
        assert_eq!(session.model.as_deref(), Some("the-second"), "the newest turn that names one");
    }
    assert_eq!(session.title, None, "no turn gives a title");
}
