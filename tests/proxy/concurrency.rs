//! Many turns at once: on one session, and on many.

use std::collections::BTreeMap;

use crate::common::*;
use tokio::task::JoinSet;

const TURNS: usize = 64;

/// A fixed shuffle of `0..TURNS`: 37 and 64 have no common divisor.
fn shuffled() -> impl Iterator<Item = usize> {
    (0..TURNS).map(|n| (n * 37 + 11) % TURNS)
}

/// The number that a message of these tests ends in.
fn number(text: &str) -> usize {
    text.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("the message ends in its number")
}

#[tokio::test]
async fn turns_of_one_session_that_overlap_are_stored_whole_and_in_commit_order() {
    let (upstream, proxy) = pair().await;
    let gates: Vec<Gate> = (0..TURNS).map(|_| Gate::new()).collect();
    let waiting = gates.clone();
    upstream.set_model(move |seen| {
        let said = seen.messages().last().unwrap()["content"].as_str().unwrap().to_owned();
        let stream = seen.json()["stream"] == true;
        let reply = format!("answer {}", number(&said));
        let reply = if stream { Reply::stream(&reply) } else { Reply::text(&reply) };
        reply.after(Step::WaitFor(waiting[number(&said)].clone()))
    });

    let mut all = JoinSet::new();
    let mut answers = BTreeMap::new();
    for n in 0..TURNS {
        let (answered, answer) = tokio::sync::oneshot::channel();
        let question = ask(proxy.addr(), n);
        all.spawn(async move { answered.send(question.await) });
        answers.insert(n, answer);
    }
    within("all requests to be upstream", upstream.wait_until(|u| u.request_count() == TURNS)).await;

    for n in shuffled() {
        gates[n].open();
        let answer = within("an answer", answers.remove(&n).unwrap()).await.unwrap().ok();
        assert_eq!(answer.said(), format!("answer {n}"));
    }

    let turns = proxy.stored("s").await;
    for turn in &turns {
        assert_eq!(turn.texts()[1], format!("answer {}", number(&turn.texts()[0])), "a turn is one group");
        assert!(turn.is_complete() && turn.messages.len() == 2);
    }
    let order: Vec<_> = turns.iter().map(|turn| number(&turn.texts()[0])).collect();
    assert_eq!(order, shuffled().collect::<Vec<_>>(), "a turn that ended before another is stored before it");

    upstream.set_model(echo);
    let answer = Post::chat(body(&[user("how many?")])).session("s").send(&proxy).await.ok();
    assert_eq!(answer.said(), format!("You said {} things; the last was: how many?", TURNS + 1));
}

#[tokio::test]
async fn turns_of_one_session_without_any_order_are_all_there_once() {
    let (_upstream, proxy) = pair().await;
    let mut all = JoinSet::new();
    for n in 0..TURNS {
        all.spawn(ask(proxy.addr(), n));
    }
    while let Some(answer) = within("the answers", all.join_next()).await {
        answer.unwrap().ok();
    }
    let mut stored: Vec<_> = proxy.stored("s").await.iter().map(|turn| number(&turn.texts()[0])).collect();
    stored.sort_unstable();
    assert_eq!(stored, (0..TURNS).collect::<Vec<_>>());
}

#[tokio::test]
async fn sessions_that_run_side_by_side_see_only_their_own() {
    let (upstream, proxy) = pair().await;
    let mut all = JoinSet::new();
    for session in 0..TURNS {
        let addr = proxy.addr();
        all.spawn(async move {
            for turn in 1..=8 {
                let messages = [user(&format!("session {session}, turn {turn}"))];
                let body = if turn % 2 == 0 { stream_body(&messages) } else { body(&messages) };
                let post = Post::chat(body).session(&format!("s{session}"));
                let said = post.try_send(addr).await.unwrap().ok().said();
                let things =
                    if turn == 1 { "1 thing:".into() } else { format!("{turn} things; the last was:") };
                assert_eq!(said, format!("You said {things} session {session}, turn {turn}"));
            }
        });
    }
    while let Some(session) = within("the sessions", all.join_next()).await {
        session.unwrap();
    }
    for seen in upstream.requests() {
        let said: Vec<_> = seen.messages().iter().filter(|m| m["role"] == "user").cloned().collect();
        let own = said.last().unwrap()["content"].as_str().unwrap().split(',').next().unwrap().to_owned();
        for message in said {
            assert!(
                message["content"].as_str().unwrap().starts_with(&format!("{own},")),
                "{message} in {own}"
            );
        }
    }
}

/// Asks the numbered question of session `s`; odd ones as a stream.
async fn ask(addr: std::net::SocketAddr, n: usize) -> Answer {
    let messages = [user(&format!("question {n}"))];
    let body = if n % 2 == 1 { stream_body(&messages) } else { body(&messages) };
    Post::chat(body).session("s").try_send(addr).await.unwrap()
}
