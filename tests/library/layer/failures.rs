//! What a client sees when the store does not do its part.

use std::{
    sync::atomic::Ordering,
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::StatusCode;
use http_body::Body;
use http_body_util::BodyExt;
use tower::Layer;
use tower_session_memory::{
    AppendQueue, OnAppendError, OnLoadError, SessionMemoryLayer, store::InMemoryStore,
};

use crate::layer::support::{DONE, EVENTS, FINISH, Model, Moody, ask, call, converse, delta, scripted};

#[tokio::test(start_paused = true)]
async fn a_history_that_cannot_be_loaded_is_a_503_and_nothing_reaches_the_model() {
    let store = Moody::new();
    let layer = SessionMemoryLayer::new(store.clone());
    let model = Model::default();
    let inner = model.saying("hello");
    for flag in [&store.loads_fail, &store.hangs] {
        flag.store(true, Ordering::SeqCst);
        let started = tokio::time::Instant::now();
        let response = converse(&layer, &inner, "s", "hi").await;
        assert!(started.elapsed() < Duration::from_secs(2), "a load takes a second at most");
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()["retry-after"], "1");
        let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(body["error"]["code"], "session_store_unavailable");
        flag.store(false, Ordering::SeqCst);
    }
    assert!(model.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_history_that_cannot_be_loaded_is_bypassed_where_that_is_asked_for() {
    let store = Moody::new();
    store.loads_fail.store(true, Ordering::SeqCst);
    let layer = SessionMemoryLayer::new(store.clone()).on_load_error(OnLoadError::Bypass);
    let response = converse(&layer, &Model::default().saying("hello"), "s", "hi").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["session-memory"], "degraded; reason=load_failed");
    assert!(store.turns("s").await.is_empty(), "an answer without memory is not recorded");
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_delays_the_end_by_no_more_than_the_commit_wait_and_gets_the_turn_later() {
    let store = Moody::gated();
    let layer = SessionMemoryLayer::new(store.clone());
    let started = tokio::time::Instant::now();
    let response = converse(&layer, &Model::default().saying("hello"), "s", "hi").await;
    assert_eq!(response.status(), StatusCode::OK);
    let waited = started.elapsed();
    assert!(waited >= Duration::from_secs(2) && waited < Duration::from_secs(3), "{waited:?}");
    assert_eq!(layer.commits().pending(), 1);
    store.gate.add_permits(1);
    let report = layer.commits().drain(Duration::from_secs(30)).await;
    assert_eq!((report.pending, report.lost), (0, 0));
    assert_eq!(store.turns("s").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn where_an_end_must_mean_stored_it_is_withheld() {
    let store = Moody::gated();
    let layer = SessionMemoryLayer::new(store.clone()).on_append_error(OnAppendError::Cut);
    let (script, body) = scripted(None);
    script.data([&delta("Hello"), FINISH, DONE].concat());
    let service = layer.layer(Model::default().answering(EVENTS, vec![body]));
    let mut body = call(&service, ask("s", "hi")).await.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), [&delta("Hello"), FINISH].concat());
    assert!(body.frame().await.unwrap().is_err(), "the end is withheld and the body broken");
    assert!(body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_append_whose_answer_was_lost_is_sent_again_and_stored_once() {
    let store = Moody::new();
    store.swallow.store(3, Ordering::SeqCst);
    let layer = SessionMemoryLayer::new(store.clone());
    converse(&layer, &Model::default().saying("hello"), "s", "hi").await;
    layer.commits().drain(Duration::from_secs(60)).await;
    assert_eq!(store.appends.load(Ordering::SeqCst), 4, "it was sent until it was answered");
    assert_eq!(store.turns("s").await.len(), 1, "and stored once");
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_can_never_be_stored_is_given_up_and_counted() {
    let store = Moody::new();
    store.appends_fail.store(true, Ordering::SeqCst);
    let layer = SessionMemoryLayer::new(store.clone());
    let response = converse(&layer, &Model::default().saying("hello"), "s", "hi").await;
    assert_eq!(response.status(), StatusCode::OK, "the reply is delivered all the same");
    let report = layer.commits().drain(Duration::from_secs(120)).await;
    assert_eq!((report.pending, report.lost), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn an_append_that_is_never_answered_is_sent_again() {
    let store = Moody::gated();
    let layer = SessionMemoryLayer::new(store.clone());
    converse(&layer, &Model::default().saying("hello"), "s", "hi").await;
    let again = async {
        while store.appends.load(Ordering::SeqCst) < 2 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), again).await.expect("one attempt has a limit");
    store.gate.add_permits(1);
    let report = layer.commits().drain(Duration::from_secs(30)).await;
    assert_eq!((report.pending, report.lost), (0, 0));
    assert_eq!(store.turns("s").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_the_store_will_never_take_is_given_up_at_once() {
    let layer = SessionMemoryLayer::new(InMemoryStore::new().with_max_bytes(100));
    let started = tokio::time::Instant::now();
    let response = converse(&layer, &Model::default().saying("hello"), "s", "hi").await;
    assert_eq!(response.status(), StatusCode::OK, "the reply is delivered all the same");
    assert_eq!((layer.commits().pending(), layer.commits().lost()), (0, 1));
    assert_eq!(started.elapsed(), Duration::ZERO, "nobody waited for the impossible");
}

#[tokio::test(start_paused = true)]
async fn a_full_append_queue_loses_the_turn_it_cannot_hold_and_no_other() {
    for queue in [
        AppendQueue::default().with_turns(std::num::NonZeroUsize::new(2).unwrap()),
        // Each of these turns has some 350 bytes.
        AppendQueue::default().with_bytes(900),
    ] {
        let store = Moody::gated();
        let layer = SessionMemoryLayer::new(store.clone()).with_append_queue(queue);
        let inner = Model::default().saying("hello");
        for session in ["a", "b", "c"] {
            assert_eq!(converse(&layer, &inner, session, "hi").await.status(), StatusCode::OK);
        }
        assert_eq!((layer.commits().pending(), layer.commits().lost()), (2, 1), "{queue:?}");
        store.gate.add_permits(10);
        layer.commits().drain(Duration::from_secs(60)).await;
        assert_eq!(
            (store.turns("a").await.len(), store.turns("b").await.len(), store.turns("c").await.len()),
            (1, 1, 0)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_deleted_while_it_is_answered_stays_deleted() {
    use tower_session_memory::store::HistoryStore;

    let store = Moody::new();
    let layer = SessionMemoryLayer::new(store.clone());
    let inner = Model::default().saying("hello");
    for first in [true, false] {
        let (script, body) = scripted(None);
        let service = layer.layer(Model::default().answering(EVENTS, vec![body]));
        let mut body = call(&service, ask("s", "hi")).await.into_body();
        script.data(delta("Hel"));
        body.frame().await.unwrap().unwrap();
        store.delete(&crate::layer::support::key("s")).await.unwrap();
        script.data([FINISH, DONE].concat());
        drop(script);
        body.collect().await.unwrap();
        assert!(
            store.turns("s").await.is_empty(),
            "a turn in flight must not resurrect it (first turn: {first})"
        );
        converse(&layer, &inner, "s", "again").await;
        assert_eq!(store.turns("s").await.len(), 1, "the session can be started anew");
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_whose_store_panics_is_lost_and_counted_and_is_no_longer_waited_for() {
    let store = Moody::new();
    store.panics.store(true, Ordering::SeqCst);
    let layer = SessionMemoryLayer::new(store.clone());
    let inner = Model::default().saying("hello");
    let response = converse(&layer, &inner, "s", "hi").await;
    assert_eq!(response.status(), StatusCode::OK, "the reply is delivered all the same");
    let report = layer.commits().drain(Duration::from_secs(60)).await;
    assert_eq!(
        (report.pending, report.lost),
        (0, 1),
        "a turn that nobody stores is neither pending nor forgotten"
    );
    store.panics.store(false, Ordering::SeqCst);
    converse(&layer, &inner, "s", "hi").await;
    assert_eq!(store.turns("s").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn limits_without_an_end_are_no_panic() {
    let mut queue = AppendQueue::default().with_retry(Duration::MAX);
    queue.attempt = Duration::MAX;
    let store = Moody::new();
    store.swallow.store(1, Ordering::SeqCst);
    let layer = SessionMemoryLayer::new(store.clone())
        .with_load_timeout(Duration::MAX)
        .with_commit_wait(Duration::MAX)
        .with_append_queue(queue);
    let response = converse(&layer, &Model::default().saying("hello"), "s", "hi").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(store.turns("s").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_drain_says_which_replies_it_left_unread() {
    let layer =
        SessionMemoryLayer::new(Moody::new()).on_disconnect(tower_session_memory::OnDisconnect::Drain);
    let (script, body) = scripted(None);
    let service = layer.layer(Model::default().answering(EVENTS, vec![body]));
    let mut body = call(&service, ask("s", "hi")).await.into_body();
    script.data(delta("Hel"));
    body.frame().await.unwrap().unwrap();
    drop(body);
    assert_eq!(layer.commits().drain(Duration::from_secs(1)).await.pending, 1, "its turn is not stored");
    script.data([FINISH, DONE].concat());
    assert_eq!(layer.commits().drain(Duration::from_secs(1)).await.pending, 0);
}

#[cfg(feature = "proxy")]
#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_in_time_is_counted() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let counted = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let store = Moody::gated();
    let layer = SessionMemoryLayer::new(store.clone());
    let inner = Model::default().saying("hello");
    converse(&layer, &inner, "s", "hi").await;
    layer.commits().drain(Duration::from_secs(120)).await;
    store.hangs.store(true, Ordering::SeqCst);
    assert_eq!(converse(&layer, &inner, "s", "hi").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    for operation in ["append", "load"] {
        let counter =
            format!("session_memory_store_errors_total{{operation=\"{operation}\",kind=\"timeout\"}}");
        assert!(counted.render().contains(&counter), "no {counter}:\n{}", counted.render());
    }
}

#[tokio::test(start_paused = true)]
async fn a_history_that_may_lack_a_turn_says_so() {
    let store = Moody::gated();
    let layer = SessionMemoryLayer::new(store.clone());
    let inner = Model::default().saying("hello");
    converse(&layer, &inner, "s", "one").await;
    assert_eq!(layer.commits().pending(), 1, "the first turn is still on its way");
    let second = converse(&layer, &inner, "s", "two").await;
    let said = second.headers()["session-memory"].to_str().unwrap();
    assert!(said.starts_with("degraded; reason=pending; client=new;"), "{said}");
    store.gate.add_permits(10);
    layer.commits().drain(Duration::from_secs(60)).await;
    let third = converse(&layer, &inner, "s", "three").await;
    assert!(third.headers()["session-memory"].to_str().unwrap().starts_with("hit; client=delta; turns=2;"));
}

#[tokio::test]
async fn a_store_that_has_the_turn_at_once_does_not_hold_the_replys_end_up() {
    let layer = SessionMemoryLayer::new(InMemoryStore::new());
    let (script, body) = scripted(None);
    script.data([&delta("Hello"), FINISH, DONE].concat());
    drop(script);
    let service = layer.layer(Model::default().answering(EVENTS, vec![body]));
    let mut body = std::pin::pin!(call(&service, ask("s", "hi")).await.into_body());
    let mut nobody = Context::from_waker(Waker::noop());
    // No other task gets to run in between.
    while let Poll::Ready(frame) = body.as_mut().poll_frame(&mut nobody) {
        let Some(frame) = frame else { return };
        frame.unwrap();
    }
    panic!("the end waits for a task");
}
