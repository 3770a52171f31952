//! Clients that leave before the end.

use std::{sync::atomic::Ordering, time::Duration};

use http_body_util::BodyExt;
use tower::Layer;
use tower_session_memory::{OnDisconnect, SessionMemoryLayer, history::TurnState};

use crate::layer::support::{DONE, EVENTS, FINISH, Model, Moody, ask, call, converse, delta, scripted};

async fn leave_after(layer: &SessionMemoryLayer, text: &str) -> crate::layer::support::Script {
    let (script, body) = scripted(None);
    let service = layer.layer(Model::default().answering(EVENTS, vec![body]));
    let mut body = call(&service, ask("s", "hi")).await.into_body();
    script.data(text.to_owned());
    body.frame().await.unwrap().unwrap();
    drop(body);
    script
}

#[tokio::test]
async fn what_the_client_was_sent_is_kept_as_an_interrupted_turn() {
    let store = Moody::new();
    let layer = SessionMemoryLayer::new(store.clone());
    let script = leave_after(&layer, &delta("Hel")).await;
    assert!(script.dropped.load(Ordering::SeqCst), "the upstream is cancelled");
    let turns = store.until("s", 1).await;
    assert_eq!(turns[0].turn().unwrap().state(), TurnState::Interrupted);
    assert_eq!(
        turns[0].turn().unwrap().items().last().unwrap().raw(),
        r#"{"role":"assistant","content":"Hel"}"#
    );
}

#[tokio::test]
async fn nothing_said_is_nothing_stored() {
    let store = Moody::new();
    let layer = SessionMemoryLayer::new(store.clone());
    leave_after(&layer, ": ping\n\n").await;
    layer.commits().drain(Duration::from_secs(5)).await;
    assert!(store.turns("s").await.is_empty());
}

#[tokio::test]
async fn a_tool_call_cut_in_its_arguments_is_never_kept() {
    let store = Moody::new();
    let layer = SessionMemoryLayer::new(store.clone());
    let call = r#"data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":"{\"a\":"}}]},"finish_reason":null}]}"#;
    leave_after(&layer, &format!("{call}\n\n")).await;
    layer.commits().drain(Duration::from_secs(5)).await;
    assert!(store.turns("s").await.is_empty(), "a call without its end would brick the session");
    leave_after(&layer, &format!("{}{call}\n\n", delta("Let me look."))).await;
    let turns = store.until("s", 1).await;
    assert_eq!(
        turns[0].turn().unwrap().items().last().unwrap().raw(),
        r#"{"role":"assistant","content":"Let me look."}"#
    );
}

#[tokio::test]
async fn a_client_that_stops_at_the_finish_reason_has_its_whole_turn_before_its_next_request() {
    let store = Moody::gated();
    let layer = SessionMemoryLayer::new(store.clone()).with_load_timeout(Duration::from_secs(60));
    leave_after(&layer, &[&delta("Hello"), FINISH].concat()).await;
    let model = Model::default();
    let next = {
        let (layer, inner) = (layer.clone(), model.saying("again"));
        tokio::spawn(async move { converse(&layer, &inner, "s", "more").await })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(model.seen.lock().unwrap().is_empty(), "the next load waits for the commit in flight");
    store.gate.add_permits(10);
    next.await.unwrap();
    assert_eq!(model.contents(0), ["hi", "Hello", "more"]);
    assert_eq!(store.turns("s").await[0].turn().unwrap().state(), TurnState::Complete);
}

#[tokio::test]
async fn a_turn_that_the_client_has_read_is_waited_for_before_anybody_notices_that_it_stopped_reading() {
    let store = Moody::new();
    let layer = SessionMemoryLayer::new(store.clone()).with_load_timeout(Duration::from_secs(60));
    let (script, body) = scripted(None);
    let service = layer.layer(Model::default().answering(EVENTS, vec![body]));
    let mut body = call(&service, ask("s", "hi")).await.into_body();
    script.data([&delta("Hello"), FINISH].concat());
    body.frame().await.unwrap().unwrap();

    let (model, mut body) = (Model::default(), Some(body));
    let inner = model.saying("again");
    let mut next = std::pin::pin!(converse(&layer, &inner, "s", "more"));
    std::future::poll_fn(|cx| {
        let polled = next.as_mut().poll(cx);
        // Only now does the server find the connection closed.
        if body.take().is_some() {
            assert!(polled.is_pending(), "the finish is out, so the next load waits for its turn");
        }
        polled.map(drop)
    })
    .await;
    assert_eq!(model.contents(0), ["hi", "Hello", "more"]);
}

#[tokio::test]
async fn discarded_means_nothing_is_stored() {
    let store = Moody::new();
    let layer = SessionMemoryLayer::new(store.clone()).on_disconnect(OnDisconnect::Discard);
    let script = leave_after(&layer, &delta("Hel")).await;
    assert!(script.dropped.load(Ordering::SeqCst));
    layer.commits().drain(Duration::from_secs(5)).await;
    assert!(store.turns("s").await.is_empty());
}

#[tokio::test]
async fn a_drained_reply_is_read_to_its_end_and_stored_whole() {
    let store = Moody::new();
    let layer = SessionMemoryLayer::new(store.clone()).on_disconnect(OnDisconnect::Drain);
    let script = leave_after(&layer, &delta("Hel")).await;
    assert!(!script.dropped.load(Ordering::SeqCst), "the upstream is not cancelled");
    script.data([&delta("lo"), FINISH, DONE].concat());
    let turns = store.until("s", 1).await;
    assert_eq!(turns[0].turn().unwrap().state(), TurnState::Complete);
    assert_eq!(
        turns[0].turn().unwrap().items().last().unwrap().raw(),
        r#"{"role":"assistant","content":"Hello"}"#
    );
}

#[tokio::test]
async fn a_client_that_leaves_before_the_head_is_drained_for_too() {
    let store = Moody::new();
    let layer = SessionMemoryLayer::new(store.clone()).on_disconnect(OnDisconnect::Drain);
    let (head, arrived) = tokio::sync::oneshot::channel::<()>();
    let arrived = std::sync::Arc::new(tokio::sync::Mutex::new(Some(arrived)));
    let inner = tower::service_fn(move |_: http::Request<_>| {
        let arrived = std::sync::Arc::clone(&arrived);
        async move {
            arrived.lock().await.take().unwrap().await.unwrap();
            let (script, body) = scripted(None);
            script.data([&delta("Late"), FINISH, DONE].concat());
            let response = http::Response::builder().header("content-type", EVENTS).body(body).unwrap();
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let service = layer.layer(inner);
    let impatient = tokio::time::timeout(Duration::from_millis(20), call(&service, ask("s", "hi"))).await;
    assert!(impatient.is_err());
    head.send(()).unwrap();
    let turns = store.until("s", 1).await;
    assert_eq!(
        turns[0].turn().unwrap().items().last().unwrap().raw(),
        r#"{"role":"assistant","content":"Late"}"#
    );
}

#[tokio::test(start_paused = true)]
async fn a_drained_reply_that_has_finished_is_stored_although_the_upstream_never_ends() {
    let store = Moody::new();
    let layer = SessionMemoryLayer::new(store.clone()).on_disconnect(OnDisconnect::Drain);
    let script = leave_after(&layer, &[&delta("Hello"), FINISH].concat()).await;
    let report = layer.commits().drain(Duration::from_secs(60)).await;
    assert_eq!(report.pending, 0, "nobody waits for an end that does not come");
    assert_eq!(store.turns("s").await[0].turn().unwrap().state(), TurnState::Complete);
    assert!(script.dropped.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_drained_reply_that_breaks_off_is_no_turn() {
    let store = Moody::new();
    let layer = SessionMemoryLayer::new(store.clone()).on_disconnect(OnDisconnect::Drain);
    let script = leave_after(&layer, &delta("Hel")).await;
    script.data([&delta("lo"), FINISH].concat());
    script.fail();
    layer.commits().drain(Duration::from_secs(5)).await;
    assert!(store.turns("s").await.is_empty());
}

#[tokio::test]
async fn a_reply_that_has_ended_is_stored_although_its_client_left_before_done_and_others_are_discarded() {
    let store = Moody::new();
    let layer = SessionMemoryLayer::new(store.clone()).on_disconnect(OnDisconnect::Discard);
    leave_after(&layer, &[&delta("Hello"), FINISH].concat()).await;
    layer.commits().drain(Duration::from_secs(5)).await;
    let turns = store.turns("s").await;
    assert_eq!(turns.len(), 1, "the client has read all of it");
    assert_eq!(turns[0].turn().unwrap().state(), TurnState::Complete);
}

#[tokio::test]
async fn more_replies_are_not_read_on_at_once_than_turns_may_wait() {
    let store = Moody::new();
    let queue = tower_session_memory::AppendQueue::default().with_turns(std::num::NonZeroUsize::MIN);
    let layer =
        SessionMemoryLayer::new(store.clone()).with_append_queue(queue).on_disconnect(OnDisconnect::Drain);
    let first = leave_after(&layer, &delta("Hel")).await;
    let second = leave_after(&layer, &delta("Par")).await;
    assert!(!first.dropped.load(Ordering::SeqCst), "the first is read on");
    assert!(second.dropped.load(Ordering::SeqCst), "there is no room for the second");
    let turns = store.until("s", 1).await;
    assert_eq!(turns[0].turn().unwrap().state(), TurnState::Interrupted, "what its client was sent is kept");
    first.data([&delta("lo"), FINISH, DONE].concat());
    assert_eq!(store.until("s", 2).await[1].turn().unwrap().state(), TurnState::Complete);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_falls_silent_is_not_read_on_for_ever() {
    let store = Moody::new();
    let layer = SessionMemoryLayer::new(store.clone()).on_disconnect(OnDisconnect::Drain);
    let script = leave_after(&layer, &delta("Hel")).await;
    let report = layer.commits().drain(Duration::from_secs(3600)).await;
    assert_eq!(report.pending, 0, "the drain must end");
    assert!(script.dropped.load(Ordering::SeqCst));
    assert_eq!(store.turns("s").await[0].turn().unwrap().state(), TurnState::Interrupted);
}
