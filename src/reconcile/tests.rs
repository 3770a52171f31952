#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{cell::Cell, num::NonZeroUsize};

use bytes::Bytes;

use super::*;
use crate::history::{
    Record,
    fixtures::{Said, assistant, calls, canonical, interrupted, respaced, result, turn, turn_with, user},
};

/// What a plan does, in the order in which it happens.
struct Outcome {
    plan: Plan,
    upstream: Vec<String>,
    stored: Vec<String>,
}

fn text(item: &[u8]) -> String {
    String::from_utf8_lossy(item).trim().replace(['{', '}', '"'], "")
}

/// Splits joined items; the toy format has no commas of its own.
fn split(group: &Bytes) -> impl Iterator<Item = String> {
    group.split(|byte| *byte == b',').map(text)
}

fn incoming<'a>(items: &'a [Item], log: &'a Log) -> Incoming<'a> {
    let leading = items.iter().take_while(|item| item.author() == Author::Instruction).count();
    let (instructions, items) = items.split_at(leading);
    Incoming {
        instructions,
        items,
        log,
        lead: &[],
        mode: Mode::Recognize,
        retried: false,
        remember: Instructions::Remember,
        window: Window::default(),
    }
}

fn run(incoming: &Incoming<'_>) -> Outcome {
    let plan = reconcile(incoming, &canonical);
    let raw = |items: &[Item]| items.iter().map(|m| text(m.raw())).collect::<Vec<_>>();
    let inserted = plan.insertion().groups().flat_map(split).collect();
    let upstream = [raw(incoming.instructions), inserted, raw(incoming.items)].concat();
    let stored = raw(&incoming.items[plan.new.clone()]);
    Outcome { plan, upstream, stored }
}

fn after(record: &Record) -> Parent {
    record.turn().map(|turn| Parent::At(turn.place())).unwrap()
}

fn check(outcome: &Outcome, case: ClientCase, parent: Parent, upstream: &str, stored: &str) {
    assert_eq!(outcome.plan.case, case);
    assert_eq!(outcome.plan.parent, parent, "the parent of a {case:?}");
    assert_eq!(outcome.upstream.join(" "), upstream, "upstream sees of a {case:?}");
    assert_eq!(outcome.stored.join(" "), stored, "stored of a {case:?}");
}

/// u1 a1 | u2 a2
fn two_turns() -> (Log, Vec<Record>) {
    let turns = vec![
        turn(Parent::Previous, &[user("u1")], assistant("a1")),
        turn(Parent::Previous, &[user("u2")], assistant("a2")),
    ];
    (turns.iter().cloned().collect(), turns)
}

/// "s1 u1 a1 c1+c2 r1": system, user, assistant, an assistant's calls, a tool's result.
fn said(script: &str) -> Vec<Item> {
    script
        .split_whitespace()
        .map(|word| match word.as_bytes()[0] {
            b's' => Said::System(word).item(),
            b'u' => user(word),
            b'a' => assistant(word),
            b'c' => calls(&word.split('+').collect::<Vec<_>>()),
            _ => result(&word.replace('r', "c")),
        })
        .collect()
}

fn shown(script: &str) -> String {
    said(script).iter().map(|m| text(m.raw())).collect::<Vec<_>>().join(" ")
}

#[test]
fn nothing_stored_goes_as_it_is_and_lines_up_behind_whoever_was_first() {
    let log = Log::new();
    for script in ["u1", "s1 u1", "u1 a1 u2", "s1"] {
        let items = said(script);
        let outcome = run(&incoming(&items, &log));
        let rest = script.strip_prefix("s1").unwrap_or(script);
        check(&outcome, ClientCase::New, Parent::Previous, &shown(script), &shown(rest));
        assert_eq!(outcome.plan.stores_instructions, script.starts_with('s'));
    }
}

#[test]
fn a_delta_follows_the_whole_history_and_digests_nothing() {
    let (log, _) = two_turns();
    let items = said("s1 u3");
    let plan = reconcile(&incoming(&items, &log), &|_| panic!("a delta needs no digest"));
    assert_eq!((plan.case, plan.turns, plan.items, plan.sent), (ClientCase::Delta, 2, 5, 5));
    check(
        &run(&incoming(&items, &log)),
        ClientCase::Delta,
        Parent::Previous,
        &shown("s1 u1 a1 u2 a2 u3"),
        &shown("u3"),
    );
}

#[test]
fn a_resend_goes_as_it_is_and_only_the_rest_is_stored() {
    let (log, _) = two_turns();
    let items: Vec<_> = said("u1 a1 u2 a2 u3 u4").iter().map(respaced).collect();
    let outcome = run(&incoming(&items, &log));
    check(&outcome, ClientCase::Resend, Parent::Previous, &shown("u1 a1 u2 a2 u3 u4"), &shown("u3 u4"));
    assert_eq!((outcome.plan.items, outcome.plan.sent), (6, 6));
}

#[test]
fn a_window_gets_back_what_the_client_forgot() {
    let (log, _) = two_turns();
    for script in ["u2 a2 u3", "a2 u3"] {
        let items: Vec<_> = said(script).iter().map(respaced).collect();
        let outcome = run(&incoming(&items, &log));
        check(&outcome, ClientCase::Window, Parent::Previous, &shown("u1 a1 u2 a2 u3"), &shown("u3"));
        assert_eq!((outcome.plan.items, outcome.plan.sent), (5, 5), "{script}");
    }
}

#[test]
fn the_longest_tail_counts_where_a_conversation_repeats_itself() {
    let turns = ["x", "y", "x", "y", "x"].map(|t| turn(Parent::Previous, &[user(t)], assistant(t)));
    let log: Log = turns.into_iter().collect();
    let mut items: Vec<_> = ["x", "y", "x"].into_iter().flat_map(|t| [user(t), assistant(t)]).collect();
    items.push(user("z"));
    let outcome = run(&incoming(&items, &log));
    assert_eq!(outcome.plan.case, ClientCase::Window);
    assert_eq!(outcome.plan.sent, 11, "the three last turns are in the request, the two first are inserted");
}

#[test]
fn an_edit_continues_the_last_turn_that_is_whole() {
    let (log, turns) = two_turns();
    let first = after(&turns[0]);
    for (script, stored) in [("u1 a1 u9", "u9"), ("u1 a1 u2", "u2"), ("u1 a1 u2 a9 u3", "u2 a9 u3")] {
        let items: Vec<_> = said(script).iter().map(respaced).collect();
        let outcome = run(&incoming(&items, &log));
        check(&outcome, ClientCase::Edit, first, &shown(script), &shown(stored));
        assert_eq!(outcome.plan.turns, 1, "the abandoned turn is not on the parent's path");
    }
}

#[test]
fn another_conversation_starts_from_the_root() {
    let (log, _) = two_turns();
    for script in ["u8 a8 u9", "u1 a9 u2", "a1 u2 a9 u3"] {
        let items = said(script);
        let outcome = run(&incoming(&items, &log));
        check(&outcome, ClientCase::Unrelated, Parent::Root, &shown(script), &shown(script));
        assert_eq!((outcome.plan.turns, outcome.plan.sent), (0, items.len()));
    }
}

#[test]
fn a_retry_supersedes_the_newest_turn() {
    let (log, turns) = two_turns();
    let items = vec![respaced(&user("u2"))];
    let again = Incoming { retried: true, ..incoming(&items, &log) };
    let outcome = run(&again);
    check(&outcome, ClientCase::Retry, after(&turns[0]), &shown("u1 a1 u2"), &shown("u2"));
    assert_eq!((outcome.plan.turns, outcome.plan.items, outcome.plan.sent), (1, 3, 3));

    let said_twice = run(&incoming(&items, &log));
    check(&said_twice, ClientCase::Delta, Parent::Previous, &shown("u1 a1 u2 a2 u2"), &shown("u2"));
    let other = said("u3");
    let new_after_failures = run(&Incoming { retried: true, ..incoming(&other, &log) });
    assert_eq!(new_after_failures.plan.case, ClientCase::Delta, "the marked request was never stored");
}

#[test]
fn a_retry_of_a_client_with_a_window_or_with_everything_supersedes_as_well() {
    let turns = ["1", "2", "3"]
        .map(|n| turn(Parent::Previous, &[user(&format!("u{n}"))], assistant(&format!("a{n}"))));
    let second = after(&turns[1]);
    let log: Log = turns.into_iter().collect();
    for (sent, case) in [
        ("u2 a2 u3", ClientCase::Retry),
        ("a2 u3", ClientCase::Retry),
        ("a1 u2 a2 u3", ClientCase::Retry),
        ("u1 a1 u2 a2 u3", ClientCase::Edit),
    ] {
        let items: Vec<_> = said(sent).iter().map(respaced).collect();
        let outcome = run(&Incoming { retried: true, ..incoming(&items, &log) });
        check(&outcome, case, second, &shown("u1 a1 u2 a2 u3"), &shown("u3"));
    }
    let items = said("a1 u2 a3 u3");
    let outcome = run(&Incoming { retried: true, ..incoming(&items, &log) });
    assert_eq!(outcome.plan.case, ClientCase::Unrelated, "only the end of the history may stand before it");
}

#[test]
fn a_retry_of_the_first_turn_starts_from_the_root_and_an_interrupted_turn_needs_no_mark() {
    let log: Log = [interrupted(&[user("u1")], assistant("a"))].into_iter().collect();
    let (items, other) = (said("s1 u1"), said("u2"));
    check(&run(&incoming(&items, &log)), ClientCase::Retry, Parent::Root, &shown("s1 u1"), &shown("u1"));
    assert_eq!(run(&incoming(&other, &log)).plan.case, ClientCase::Delta, "going on after an interruption");
}

#[test]
fn reset_forgets_and_append_believes() {
    let (log, _) = two_turns();
    let items = said("s1 u1 a1 u2");
    let reset = run(&Incoming { mode: Mode::Reset, ..incoming(&items, &log) });
    check(&reset, ClientCase::New, Parent::Root, &shown("s1 u1 a1 u2"), &shown("u1 a1 u2"));
    assert!(reset.plan.stores_instructions);
    let append = run(&Incoming { mode: Mode::Append, ..incoming(&items, &log) });
    check(
        &append,
        ClientCase::Delta,
        Parent::Previous,
        &shown("s1 u1 a1 u2 a2 u1 a1 u2"),
        &shown("u1 a1 u2"),
    );
}

#[test]
fn instructions_are_remembered_once_and_stored_when_they_change() {
    let turns = [
        turn_with("s1", Parent::Previous, &[user("u1")], assistant("a1")),
        turn(Parent::Previous, &[user("u2")], assistant("a2")),
    ];
    let log: Log = turns.into_iter().collect();
    for (sent, upstream, stores) in [
        ("u3", "s1 u1 a1 u2 a2 u3", false),
        ("s1 u3", "s1 u1 a1 u2 a2 u3", false),
        ("s2 u3", "s2 u1 a1 u2 a2 u3", true),
        ("a2 u3", "s1 u1 a1 u2 a2 u3", false),
        ("u1 a1 u2 a2 u3", "u1 a1 u2 a2 u3", false),
        ("s1 u1 a1 u9", "s1 u1 a1 u9", false),
        ("s1 u8 a8 u9", "s1 u8 a8 u9", true),
    ] {
        let items = said(sent);
        let outcome = run(&incoming(&items, &log));
        assert_eq!(outcome.upstream.join(" "), shown(upstream), "{sent}");
        assert_eq!(outcome.plan.stores_instructions, stores, "{sent}");
        let items = said("u3");
        let own = run(&Incoming { remember: Instructions::Client, ..incoming(&items, &log) });
        assert_eq!(own.upstream.join(" "), shown("u1 a1 u2 a2 u3"), "the client's only");
    }
    let items = said("s2 u3");
    let own = run(&Incoming { remember: Instructions::Client, ..incoming(&items, &log) });
    assert!(!own.plan.stores_instructions, "what is not remembered is not stored");
}

#[test]
fn an_unanswered_call_is_not_sent_and_stays_in_the_log() {
    let asks = turn(Parent::Previous, &[user("u1")], calls(&["c1", "c2"]));
    let log: Log = [asks].into_iter().collect();
    for (sent, upstream) in [("r1 r2", "u1 c1+c2 r1 r2"), ("r2", "u1 c1+c2 r2"), ("u2", "u2"), ("r9", "r9")] {
        let items = said(sent);
        let outcome = run(&incoming(&items, &log));
        check(&outcome, ClientCase::Delta, Parent::Previous, &shown(upstream), &shown(sent));
        assert_eq!(outcome.plan.turns, 1, "the turn stays on the path");
    }
}

#[test]
fn a_client_that_remembers_the_healed_view_is_recognised() {
    let turns = [
        turn(Parent::Previous, &[user("u1")], assistant("a1")),
        turn(Parent::Previous, &[user("u2")], calls(&["c1"])),
        turn(Parent::Previous, &[user("u3")], assistant("a3")),
        turn(Parent::Previous, &[user("u4")], assistant("a4")),
    ];
    let third = after(&turns[2]);
    let log: Log = turns.into_iter().collect();
    for (sent, case, parent, upstream, stored) in [
        ("u1 a1 u3 a3 u4 a4 u5", ClientCase::Resend, Parent::Previous, "u1 a1 u3 a3 u4 a4 u5", "u5"),
        ("a1 u3 a3 u4 a4 u5", ClientCase::Window, Parent::Previous, "u1 a1 u3 a3 u4 a4 u5", "u5"),
        ("u3 a3 u4 a4 u5", ClientCase::Window, Parent::Previous, "u1 a1 u3 a3 u4 a4 u5", "u5"),
        ("u1 a1 u3 a3 u9", ClientCase::Edit, third, "u1 a1 u3 a3 u9", "u9"),
    ] {
        let items = said(sent);
        check(&run(&incoming(&items, &log)), case, parent, &shown(upstream), &shown(stored));
    }
}

#[test]
fn a_call_that_is_asked_for_again_is_an_edit_although_healing_hides_it() {
    let turns = [
        turn(Parent::Previous, &[user("u1")], assistant("a1")),
        turn(Parent::Previous, &[user("u2")], calls(&["c1"])),
    ];
    let first = after(&turns[0]);
    let log: Log = turns.into_iter().collect();
    let (again, other) = (said("u1 a1 u2"), said("u1 a1 u3"));
    check(&run(&incoming(&again, &log)), ClientCase::Edit, first, &shown("u1 a1 u2"), &shown("u2"));
    check(
        &run(&incoming(&other, &log)),
        ClientCase::Resend,
        Parent::Previous,
        &shown("u1 a1 u3"),
        &shown("u3"),
    );
}

#[test]
fn a_window_that_begins_inside_a_tool_exchange_gets_the_calls_back() {
    let turns = [
        turn(Parent::Previous, &[user("u1")], calls(&["c1"])),
        turn(Parent::Previous, &[result("c1"), user("u2")], assistant("a2")),
    ];
    let log: Log = turns.into_iter().collect();
    for sent in ["r1 u2 a2 u3", "u2 a2 u3", "a2 u3", "c1 r1 u2 a2 u3"] {
        let items = said(sent);
        let outcome = run(&incoming(&items, &log));
        check(&outcome, ClientCase::Window, Parent::Previous, &shown("u1 c1 r1 u2 a2 u3"), &shown("u3"));
    }
}

#[test]
fn what_is_inserted_is_cut_alike_however_much_the_client_remembers() {
    let turns = ["1", "2", "3", "4", "5"]
        .map(|n| turn(Parent::Previous, &[user(&format!("u{n}"))], assistant(&format!("a{n}"))));
    let log: Log = turns.into_iter().collect();
    let window = Window { turns: NonZeroUsize::new(4).unwrap(), bytes: usize::MAX };
    for (sent, upstream) in [
        ("u6", "u4 a4 u5 a5 u6"),
        ("a5 u6", "u4 a4 u5 a5 u6"),
        ("a4 u5 a5 u6", "u4 a4 u5 a5 u6"),
        ("a3 u4 a4 u5 a5 u6", "a3 u4 a4 u5 a5 u6"),
        ("u1 a1 u2 a2 u3 a3 u4 a4 u5 a5 u6", "u1 a1 u2 a2 u3 a3 u4 a4 u5 a5 u6"),
    ] {
        let items = said(sent);
        let outcome = run(&Incoming { window, ..incoming(&items, &log) });
        assert_eq!(outcome.upstream.join(" "), shown(upstream), "{sent}");
        assert_eq!((outcome.plan.items, outcome.plan.sent), (11, shown(upstream).split(' ').count()));
    }
}

#[test]
fn a_item_is_digested_once_at_most() {
    let turns: Vec<_> =
        (0..50).map(|n| turn(Parent::Previous, &[user(&format!("u{}", n % 2))], assistant("a"))).collect();
    let log: Log = turns.into_iter().collect();
    let items: Vec<_> = said(&"u0 a u1 a ".repeat(12)).iter().map(respaced).chain(said("a u9")).collect();
    let count = Cell::new(0);
    let counting = |item: &Item| {
        count.set(count.get() + 1);
        canonical(item)
    };
    let plan = reconcile(&incoming(&items, &log), &counting);
    assert_eq!(plan.case, ClientCase::Window);
    assert!(count.get() <= 100 + items.len(), "{} digests", count.get());
}

#[test]
fn a_plan_in_a_log_line_shows_no_content() {
    let (log, _) = two_turns();
    let items = said("u3");
    let plan = reconcile(&incoming(&items, &log), &canonical);
    let shown = format!("{plan:?} {:?}", incoming(&items, &log));
    for content in ["u1", "a2", "u3"] {
        assert!(!shown.contains(&format!("\"{content}")), "{shown}");
    }
    assert!(!plan.insertion().is_empty());
}
