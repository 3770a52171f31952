use std::num::NonZeroUsize;

use super::{
    Harness,
    fixture::{Fixture, assert_same},
};
use crate::{
    history::Record,
    session::SessionKey,
    store::{HistoryStore, ReadOptions, RecordPage, Retention},
};

async fn page<S: HistoryStore + 'static>(
    fixture: &Fixture<S>,
    key: &SessionKey,
    options: &ReadOptions,
) -> RecordPage {
    fixture.store.read(key, options).await.expect("a read succeeds")
}

pub(super) async fn a_log_is_read_page_by_page_from_any_place<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    let key = fixture.key("a");
    let texts: Vec<String> = (0..40).map(|number| number.to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let (turns, cursor) = fixture.say(&key, &texts).await;
    for size in [1, 7, 39, 40, 1000] {
        let (mut read, mut from): (Vec<Record>, _) = (Vec::new(), Some(0));
        while let Some(next) = from {
            let page = page(&fixture, &key, &ReadOptions::new(next).with_max_records(size)).await;
            assert_eq!(page.first, next, "a page begins where it was asked to");
            assert!((1..=size).contains(&page.records.len()), "a page of {}", page.records.len());
            assert_eq!(page.cursor, cursor, "a page names the log's end");
            read.extend(page.records);
            from = page.next;
            assert_eq!(from.is_none(), read.len() == turns.len(), "the last page says that it is the last");
        }
        assert_same(&read, &turns, "every record once, oldest first");
    }
    for from in [0, 1, 15, 16, 17, 31, 38, 39] {
        let page = page(&fixture, &key, &ReadOptions::new(from).with_max_records(3)).await;
        let from = from as usize;
        assert_same(&page.records, &turns[from..turns.len().min(from + 3)], "three records from any place");
    }
    for past in [40, 41, u64::MAX] {
        let page = page(&fixture, &key, &ReadOptions::new(past)).await;
        assert!(page.records.is_empty() && page.next.is_none(), "nothing is past the end");
        assert_eq!(page.cursor, cursor, "it says where the end is");
    }
}

pub(super) async fn a_page_is_bounded_in_bytes_and_holds_at_least_one_record<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    let key = fixture.key("a");
    let large = "0123456789abcdef".repeat(4096);
    let (turns, _) = fixture.say(&key, &["small", &large, "small", "small", &large]).await;
    let one_byte = page(&fixture, &key, &ReadOptions::new(1).with_max_bytes(1)).await;
    assert_same(&one_byte.records, &turns[1..2], "one record, however large");
    assert_eq!(one_byte.next, Some(2));
    let mut from = Some(0);
    let mut read = Vec::new();
    while let Some(next) = from {
        let page = page(&fixture, &key, &ReadOptions::new(next).with_max_bytes(40_000)).await;
        // Where a wrapper makes records smaller, more of them fit.
        assert!(!page.records.is_empty(), "a page goes on");
        read.extend(page.records);
        from = page.next;
    }
    assert_same(&read, &turns, "every record once");
}

pub(super) async fn a_read_after_trimming_begins_with_the_oldest_record_that_is_kept<H: Harness>(
    harness: &H,
) {
    let fixture = Fixture::with(harness, Retention::new().with_max_turns(NonZeroUsize::new(3))).await;
    let key = fixture.key("a");
    let (turns, _) = fixture.say(&key, &["one", "two", "three", "four", "five"]).await;
    for from in [0, 1, 2] {
        let page = page(&fixture, &key, &ReadOptions::new(from)).await;
        assert_same(&page.records, &turns[2..], "what is kept");
        assert_eq!((page.first, page.next), (2, None), "two are kept no more");
    }
    let last = page(&fixture, &key, &ReadOptions::new(4)).await;
    assert_same(&last.records, &turns[4..], "a place counts trimmed records too");
}

pub(super) async fn a_read_of_what_is_not_there_is_an_empty_page<H: Harness>(harness: &H) {
    let fixture = Fixture::new(harness).await;
    let (never, deleted) = (fixture.key("a"), fixture.key("b"));
    fixture.say(&deleted, &["one"]).await;
    fixture.delete(&deleted).await;
    for key in [never, deleted] {
        let page = page(&fixture, &key, &ReadOptions::new(0)).await;
        assert!(page.records.is_empty() && page.next.is_none(), "there is nothing to read");
        assert_eq!((page.first, page.cursor.count), (0, 0), "there is nothing to read");
    }
}
