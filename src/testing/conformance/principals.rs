use std::time::Duration;

use super::{Harness, fixture::Fixture};
use crate::store::{HistoryStore, Page, Retention};

/// All principals of the check's namespace, in pages of this size.
pub(super) async fn listed<S: HistoryStore + 'static>(fixture: &Fixture<S>, limit: usize) -> Vec<String> {
    listed_in(fixture, &fixture.namespace, limit).await
}

async fn listed_in<S: HistoryStore + 'static>(
    fixture: &Fixture<S>,
    namespace: &str,
    limit: usize,
) -> Vec<String> {
    let (mut found, mut after) = (Vec::new(), None);
    for _ in 0..1000 {
        let page = Page::new(limit).with_after(after);
        let page = fixture.store.principals(namespace, &page).await.expect("a listing succeeds");
        assert!(page.principals.len() <= limit, "no page is larger than {limit}");
        found.extend(page.principals.iter().map(|found| found.principal.as_str().to_owned()));
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
    panic!("a listing ends");
}

pub(super) async fn principals_are_listed_from_the_most_recently_active_page_by_page<H: Harness>(
    harness: &H,
) {
    let fixture = Fixture::new(harness).await;
    assert_eq!(listed(&fixture, 3).await, [""; 0], "nothing is listed yet");
    let mut expected = Vec::new();
    for principal in ["a", "b\\", "c:d", "ä", "e\0f", "{g}", "h*"] {
        for session in ["one", "two", "three"] {
            fixture.say(&fixture.key_of(principal, session), &["hi"]).await;
        }
        expected.insert(0, principal);
    }
    for limit in [1, 2, 3, 7, 1000] {
        assert_eq!(listed(&fixture, limit).await, expected, "each once, in pages of {limit}");
    }
}

pub(super) async fn a_turn_moves_its_principal_to_the_front<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    for (principal, session) in [("a", "1"), ("b", "1"), ("c", "1"), ("a", "2"), ("b", "1")] {
        fixture.say(&fixture.key_of(principal, session), &["hi"]).await;
    }
    assert_eq!(listed(&fixture, 100).await, ["b", "a", "c"], "the newest turn of any session counts");
    let page =
        fixture.store.principals(&fixture.namespace, &Page::new(10)).await.expect("a listing succeeds");
    let times: Vec<_> = page.principals.iter().map(|principal| principal.updated_at).collect();
    assert!(times.is_sorted_by(|newer, older| newer >= older), "their times say so: {times:?}");
}

pub(super) async fn a_principal_without_sessions_is_not_listed<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    for (principal, session) in [("a", "1"), ("b", "1"), ("b", "2"), ("c", "1")] {
        fixture.say(&fixture.key_of(principal, session), &["hi"]).await;
    }
    fixture.delete(&fixture.key_of("b", "2")).await;
    assert_eq!(listed(&fixture, 100).await, ["c", "b", "a"], "one session is left");
    fixture.delete(&fixture.key_of("b", "1")).await;
    fixture.delete(&fixture.key_of("d", "never-there")).await;
    assert_eq!(listed(&fixture, 1).await, ["c", "a"], "none is left");
    fixture.say(&fixture.key_of("b", "1"), &["anew"]).await;
    assert_eq!(listed(&fixture, 100).await, ["b", "c", "a"], "it is back");
}

pub(super) async fn a_principal_whose_sessions_expired_is_not_listed<H: Harness>(harness: &H) {
    let fixture = Fixture::with(harness, Retention::new().with_ttl(Duration::from_secs(2))).await;
    fixture.say(&fixture.key_of("a", "1"), &["hi"]).await;
    harness.pass(Duration::from_secs(3)).await;
    assert_eq!(listed(&fixture, 100).await, [""; 0], "its only session expired");
}

pub(super) async fn principals_of_another_namespace_are_not_listed<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    let others = Fixture { store: fixture.store.clone(), namespace: format!("{}*", fixture.namespace) };
    fixture.say(&fixture.key_of("a", "1"), &["hi"]).await;
    others.say(&others.key_of("b", "1"), &["hi"]).await;
    assert_eq!(listed(&fixture, 100).await, ["a"]);
    assert_eq!(listed(&others, 100).await, ["b"]);
    assert_eq!(listed_in(&fixture, "", 100).await.iter().filter(|name| *name == "a").count(), 0);
}

pub(super) async fn a_page_of_principals_that_no_listing_named_is_an_error<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    fixture.say(&fixture.key("a"), &["hi"]).await;
    for after in ["", "no such page", "\0", "';--", "-"] {
        let answer =
            fixture.store.principals(&fixture.namespace, &Page::new(10).with_after(after.to_owned())).await;
        assert!(answer.is_err_and(|error| !error.is_transient()), "{after:?} names no page, now or later");
    }
}
