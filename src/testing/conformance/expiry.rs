use std::time::{Duration, Instant};

use super::{
    Harness,
    fixture::{Fixture, after, appended, assert_same, turn, turn_from},
};
use crate::{
    history::Parent,
    store::{Appended, HistoryStore, Page, Retention, TtlRefresh},
};

/// Long enough for a store that goes by real time on a slow machine.
const TTL: Duration = Duration::from_secs(3);
const MOST_OF_IT: Duration = Duration::from_secs(2);
const MORE_THAN_IT: Duration = Duration::from_secs(4);

/// The session may have expired: this check says nothing.
pub(super) struct Late;

/// What must be there after [`MOST_OF_IT`] may be gone where a store goes by real time and the machine took the rest of
/// it: then `check` is made again.
pub(super) async fn in_time(check: impl AsyncFn() -> Result<(), Late>) {
    for _ in 0..5 {
        if check().await.is_ok() {
            return;
        }
    }
    panic!("this machine is too slow for a time to live of {TTL:?}");
}

/// Tells a session that is rightly gone, `took` after its time began, from one that is missing. One that is there is
/// neither, also where a clock was moved and the machine took its time.
fn not_late(took: Duration, found: usize, expected: usize) -> Result<(), Late> {
    if found == expected || took < TTL { Ok(()) } else { Err(Late) }
}

async fn expiring<H: Harness>(harness: &H) -> Fixture<H::Store> {
    Fixture::with(harness, Retention::new().with_ttl(TTL)).await
}

pub(super) async fn an_expired_session_is_unknown<H: Harness>(harness: &H) {
    in_time(async || {
        let fixture = expiring(harness).await;
        let key = fixture.key("a");
        let since = Instant::now();
        let (turns, cursor) = fixture.say(&key, &["one"]).await;
        let loaded = fixture.load(&key).await.records;
        not_late(since.elapsed(), loaded.len(), turns.len())?;
        assert_same(&loaded, &turns, "it has not expired yet");
        harness.pass(MORE_THAN_IT).await;
        let loaded = fixture.load_after(&key, Some(&cursor)).await;
        assert!(loaded.records.is_empty() && loaded.from_start, "an expired session is unknown");
        assert_eq!((loaded.cursor.count, loaded.cursor.newest), (0, None), "an expired session is unknown");
        let page = Page::new(10);
        let listed =
            fixture.store.sessions(&fixture.scope("somebody"), &page).await.expect("a listing succeeds");
        assert!(listed.sessions.is_empty(), "an expired session is not listed");
        Ok(())
    })
    .await;
}

pub(super) async fn an_expired_session_starts_a_new_log<H: Harness>(harness: &H) {
    in_time(async || {
        let fixture = expiring(harness).await;
        let (key, other) = (fixture.key("a"), fixture.key("b"));
        let (_, old) = fixture.say(&key, &["one", "two"]).await;
        let (_, others) = fixture.say(&other, &["one"]).await;
        harness.pass(MORE_THAN_IT).await;

        let since = Instant::now();
        let late = turn(&key, "three");
        let cursor = appended(fixture.append(&key, &old, &late).await);
        assert_eq!(cursor.count, 1, "the new log begins to count at one");
        assert_ne!(cursor.epoch, old.epoch, "the new log has its own epoch");
        let loaded = fixture.load_after(&key, Some(&old)).await;
        not_late(since.elapsed(), loaded.records.len(), 1)?;
        assert!(loaded.from_start, "a cursor of the log that expired says nothing of the new one");
        assert_same(&loaded.records, &[late], "only the new log's turn");

        let since = Instant::now();
        let root = turn_from(&other, "again", Parent::Root);
        appended(fixture.append(&other, &others, &root).await);
        let loaded = fixture.load(&other).await.records;
        not_late(since.elapsed(), loaded.len(), 1)?;
        assert_same(&loaded, &[root], "a new root starts a new log too");
        Ok(())
    })
    .await;
}

pub(super) async fn a_branch_of_an_expired_session_is_gone<H: Harness>(harness: &H) {
    let fixture = expiring(harness).await;
    let key = fixture.key("a");
    let (turns, cursor) = fixture.say(&key, &["one"]).await;
    harness.pass(MORE_THAN_IT).await;
    let branch = turn_from(&key, "two", after(&turns[0]));
    let answer = fixture.append(&key, &cursor, &branch).await;
    assert_eq!(answer, Appended::Gone, "without its parent the turn is no whole conversation");
    assert!(fixture.load(&key).await.records.is_empty(), "a turn that is gone leaves nothing");
}

pub(super) async fn every_append_puts_the_expiry_of_the_whole_session_off<H: Harness>(harness: &H) {
    in_time(async || {
        let fixture = expiring(harness).await;
        let key = fixture.key("a");
        let mut all = Vec::new();
        let (mut since, mut longest) = (Instant::now(), Duration::ZERO);
        for text in ["one", "two", "three"] {
            let now = Instant::now();
            all.extend(fixture.say(&key, &[text]).await.0);
            longest = longest.max(since.elapsed());
            since = now;
            harness.pass(MOST_OF_IT).await;
        }
        let loaded = fixture.load(&key).await.records;
        not_late(longest.max(since.elapsed()), loaded.len(), all.len())?;
        assert_same(&loaded, &all, "the first turn expires no sooner than the last");
        harness.pass(MOST_OF_IT).await;
        assert!(fixture.load(&key).await.records.is_empty(), "the last turn expires no later than it should");
        Ok(())
    })
    .await;
}

pub(super) async fn a_load_puts_the_expiry_off_where_it_is_asked_to<H: Harness>(harness: &H) {
    in_time(async || {
        let retention = Retention::new().with_ttl(TTL).with_refresh(TtlRefresh::OnLoad);
        let fixture = Fixture::with(harness, retention).await;
        let key = fixture.key("a");
        let mut since = Instant::now();
        let (turns, _) = fixture.say(&key, &["one"]).await;
        for _ in 0..3 {
            harness.pass(MOST_OF_IT).await;
            let now = Instant::now();
            let loaded = fixture.load(&key).await.records;
            not_late(since.elapsed(), loaded.len(), turns.len())?;
            since = now;
            assert_same(&loaded, &turns, "each load starts the time to live again");
        }
        harness.pass(MORE_THAN_IT).await;
        assert!(fixture.load(&key).await.records.is_empty(), "a session that is not loaded expires");
        Ok(())
    })
    .await;
}

pub(super) async fn a_load_does_not_put_the_expiry_off_by_itself<H: Harness>(harness: &H) {
    in_time(async || {
        let fixture = expiring(harness).await;
        let key = fixture.key("a");
        let since = Instant::now();
        let (turns, _) = fixture.say(&key, &["one"]).await;
        harness.pass(MOST_OF_IT).await;
        let loaded = fixture.load(&key).await.records;
        not_late(since.elapsed(), loaded.len(), turns.len())?;
        assert_same(&loaded, &turns, "it has not expired yet");
        harness.pass(MOST_OF_IT).await;
        assert!(fixture.load(&key).await.records.is_empty(), "the load did not count");
        Ok(())
    })
    .await;
}
