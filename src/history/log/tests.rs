use super::*;
use crate::history::{
    Place,
    fixtures::{assistant, kind, turn, user},
};

fn ids(path: &Path<'_>) -> Vec<RecordId> {
    path.turns().map(Turn::id).collect()
}

fn log(records: &[&Record]) -> Log {
    records.iter().map(|record| (*record).clone()).collect()
}

fn after(record: &Record, items: u32) -> Parent {
    Parent::At(Place { turn: record.id(), items })
}

#[test]
fn turns_line_up_in_commit_order_unless_they_name_a_parent() {
    let first = turn(Parent::Previous, &[user("1")], assistant("1"));
    let second = turn(Parent::Previous, &[user("2")], assistant("2"));
    let edit = turn(after(&first, 2), &[user("2'")], assistant("2'"));
    let next = turn(Parent::Previous, &[user("3")], assistant("3"));
    let again = turn(Parent::Root, &[user("x")], assistant("x"));

    let mut log = log(&[&first, &second, &edit, &next]);
    assert_eq!(ids(&log.path()), [first.id(), edit.id(), next.id()]);
    assert_eq!(ids(&log.path_before_head()), [first.id(), edit.id()]);
    log.extend([again.clone()]);
    assert_eq!(ids(&log.path()), [again.id()]);
    assert!(log.path_before_head().is_empty());
    assert_eq!(log.records().len(), 5, "abandoned branches stay in the log");
}

#[test]
fn a_turn_whose_parent_was_trimmed_is_a_root() {
    let first = turn(Parent::Previous, &[user("1")], assistant("1"));
    let edit = turn(after(&first, 2), &[user("2")], assistant("2"));
    let second = turn(Parent::Previous, &[user("3")], assistant("3"));
    assert_eq!(ids(&log(&[&second, &edit]).path()), [edit.id()]);
    assert_eq!(ids(&log(&[&second]).path()), [second.id()]);
}

#[test]
fn a_branch_leaves_a_turn_at_any_of_its_items() {
    let first = turn(Parent::Previous, &[user("1"), user("2")], assistant("3"));
    let second = turn(Parent::Previous, &[user("4")], assistant("5"));
    for (kept, shown) in [(1, "1 6 7"), (2, "1 2 6 7"), (3, "1 2 3 6 7"), (9, "1 2 3 6 7")] {
        let branch = turn(after(&first, kept), &[user("6")], assistant("7"));
        let log = log(&[&first, &second, &branch]);
        let path = log.path();
        let texts: Vec<_> = shown.split(' ').collect();
        assert_eq!(path.items(), texts.len(), "{kept} kept");
        let bytes = path.pieces().map(|piece| piece.to_vec()).collect::<Vec<_>>().join(&b","[..]);
        let said = String::from_utf8_lossy(&bytes).replace(['{', '}', '"'], "");
        let said: Vec<_> = said.split(',').filter_map(|item| item.split(':').nth(1)).collect();
        assert_eq!(said, texts, "{kept} kept");
    }
}

#[test]
fn a_record_of_another_kind_is_kept_and_is_on_no_path() {
    let first = turn(Parent::Previous, &[user("1")], assistant("1"));
    let second = turn(Parent::Previous, &[user("2")], assistant("2"));
    let third = turn(Parent::Previous, &[user("3")], assistant("3"));
    let (note, title) = (kind("note"), kind("title"));
    let mut log = log(&[&note, &first, &second, &title]);
    assert_eq!(ids(&log.path()), [first.id(), second.id()]);
    assert_eq!(log.head().map(Turn::id), Some(second.id()));
    log.extend([third.clone()]);
    assert_eq!(ids(&log.path()), [first.id(), second.id(), third.id()]);
    assert_eq!(ids(&log.path_before_head()), [first.id(), second.id()]);
    assert_eq!(log.records().len(), 5);
    let after_title = turn(after(&title, 1), &[user("4")], assistant("4"));
    log.extend([after_title.clone()]);
    assert_eq!(ids(&log.path()), [first.id(), second.id(), after_title.id()], "where the title stands");
    log.trim(4);
    assert_eq!(ids(&log.path()), [after_title.id()]);
}
