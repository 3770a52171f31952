//! The view's first step: what strict upstreams take.

use crate::history::{About, Item, Path};

/// The path as it can be sent before `next`: without the turns whose calls no result answers, and, at its beginning,
/// without those whose first item answers a call that is not there.
///
/// Providers refuse a call that no result follows, so one unanswered call would brick the session. A turn leaves the
/// view when its reply makes calls and what follows it, the next turn of the view or `next`, holds no result for any
/// of them. Then the turn before it may be unanswered in its place, and leaves too. A call that is answered in part
/// stays: the upstream tells the client what is missing.
///
/// They refuse a result without its call as well. A path begins with one where a bound on the log's size has trimmed
/// the call; what follows up to the next turn that opens otherwise leaves with it.
#[must_use]
pub fn valid<'a>(path: &Path<'a>, next: &[Item]) -> Path<'a> {
    let mut unanswered = Vec::new();
    let mut follower = None;
    for at in (0..path.len()).rev() {
        let answered = !path.calls(at)
            || match follower {
                Some(follower) => answers(path.reply(at), path.about(follower)),
                None => answers(path.reply(at), next.iter().map(Item::about)),
            };
        match answered {
            true => follower = Some(at),
            false => unanswered.push(at),
        }
    }
    let mut valid = path.clone();
    if !unanswered.is_empty() {
        valid.leave_out(&unanswered);
    }
    let results = (0..valid.len()).take_while(|at| valid.opens_with_result(*at)).count();
    valid.leave_out_first(results);
    valid
}

/// Whether one of the calls that a reply makes is answered by what follows. A call or an answer without an id
/// goes by its position, so that any answer answers it.
fn answers<'a>(reply: impl Iterator<Item = &'a About>, follows: impl Iterator<Item = &'a About>) -> bool {
    let mut open: Vec<&str> = Vec::new();
    for about in reply {
        // A reply may hold the result of a call that it makes itself.
        open.retain(|call| !about.answers.iter().any(|answer| matches(call, answer)));
        open.extend(about.calls.iter().map(String::as_str));
    }
    open.is_empty()
        || follows
            .flat_map(|about| &about.answers)
            .any(|answer| open.iter().any(|call| matches(call, answer)))
}

fn matches(call: &str, answer: &str) -> bool {
    call.is_empty() || answer.is_empty() || call == answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{
        Log, Parent, Record, RecordId, Turn,
        fixtures::{assistant, calls, result, turn, user},
    };

    fn ids(path: &Path<'_>) -> Vec<RecordId> {
        path.turns().map(Turn::id).collect()
    }

    fn log(records: &[&Record]) -> Log {
        records.iter().map(|record| (*record).clone()).collect()
    }

    #[test]
    fn an_unanswered_call_leaves_the_view_and_takes_the_calls_before_it_along() {
        let opening = turn(Parent::Previous, &[user("1")], assistant("1"));
        let asks = turn(Parent::Previous, &[user("2")], calls(&["a", "b"]));
        let asks_again = turn(Parent::Previous, &[result("a"), result("b")], calls(&["c"]));
        let plain = turn(Parent::Previous, &[user("3")], assistant("3"));

        let dangling = log(&[&opening, &asks, &asks_again]);
        assert_eq!(ids(&valid(&dangling.path(), &[user("x")])), [opening.id()]);
        assert_eq!(ids(&valid(&dangling.path(), &[])), [opening.id()]);
        assert_eq!(ids(&valid(&dangling.path(), &[result("c")])).len(), 3);
        assert_eq!(
            ids(&valid(&dangling.path(), &[result("")])).len(),
            3,
            "an answer without id goes by position"
        );
        assert_eq!(ids(&valid(&dangling.path(), &[result("a")])).len(), 2, "an answer to the call before");

        let gone_on = log(&[&opening, &asks, &asks_again, &plain]);
        assert_eq!(ids(&valid(&gone_on.path(), &[user("x")])), [opening.id(), plain.id()]);
    }

    #[test]
    fn results_whose_call_was_trimmed_leave_the_view_up_to_the_next_question() {
        let asks = turn(Parent::Previous, &[user("1")], calls(&["a"]));
        let asks_again = turn(Parent::Previous, &[result("a")], calls(&["b"]));
        let answers = turn(Parent::Previous, &[result("b")], assistant("1"));
        let plain = turn(Parent::Previous, &[user("2")], assistant("2"));

        let all = [&asks, &asks_again, &answers, &plain];
        assert_eq!(valid(&log(&all).path(), &[user("x")]).len(), 4);
        for trimmed in 1..3 {
            assert_eq!(
                ids(&valid(&log(&all[trimmed..]).path(), &[user("x")])),
                [plain.id()],
                "{trimmed} trimmed"
            );
        }
        assert!(valid(&log(&[&answers]).path(), &[user("x")]).is_empty());
    }

    #[test]
    fn a_call_answered_in_part_and_a_call_without_id_stay() {
        let asks = turn(Parent::Previous, &[user("1")], calls(&["a", "b"]));
        assert_eq!(valid(&log(&[&asks]).path(), &[result("b")]).len(), 1);
        let nameless = turn(Parent::Previous, &[user("1")], calls(&[""]));
        assert_eq!(valid(&log(&[&nameless]).path(), &[result("minted")]).len(), 1);
        assert!(valid(&log(&[&nameless]).path(), &[user("x")]).is_empty());
    }
}
