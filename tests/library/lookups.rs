//! The stage that may wait between load and view.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;
use tower::Layer;
use tower_session_memory::{
    Limits, SessionMemoryLayer,
    unstable::{Found, Lookup, Question},
};

use crate::layer::support::{Model, Moody, ask, call, converse, key};

const NOTE: &str = r#"{"role":"user","content":"found"}"#;

/// Finds one item, once the session has turns.
struct Finds;

impl Lookup for Finds {
    fn name(&self) -> &'static str {
        "finds"
    }

    fn look_up<'a>(&'a self, question: Question<'a>) -> Found<'a> {
        assert_eq!(*question.key, key("s"));
        assert_eq!(question.draft.items.len(), 1);
        let found = question.log.turns().next().map(|_| Bytes::from_static(NOTE.as_bytes()));
        Box::pin(async move { found.into_iter().collect() })
    }
}

/// Answers never, and sees when it is dropped.
struct Hangs(Arc<AtomicBool>);

impl Lookup for Hangs {
    fn name(&self) -> &'static str {
        "hangs"
    }

    fn look_up<'a>(&'a self, _: Question<'a>) -> Found<'a> {
        let dropped = SetOnDrop(Arc::clone(&self.0));
        Box::pin(async move {
            std::future::pending::<()>().await;
            drop(dropped);
            vec![Bytes::from_static(NOTE.as_bytes())]
        })
    }
}

struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn layer(lookups: Vec<Arc<dyn Lookup>>) -> SessionMemoryLayer {
    SessionMemoryLayer::new(Moody::new()).with_lookups(lookups, Duration::from_millis(50))
}

#[tokio::test]
async fn what_was_found_stands_before_the_history_and_is_not_recorded() {
    let (layer, model) = (layer(vec![Arc::new(Finds)]), Model::default());
    let inner = model.saying("fine");
    for text in ["one", "two", "three"] {
        converse(&layer, &inner, "s", text).await;
    }
    assert_eq!(model.contents(0), ["one"]);
    assert_eq!(model.contents(1), ["found", "one", "fine", "two"]);
    assert_eq!(model.contents(2), ["found", "one", "fine", "two", "fine", "three"]);
}

#[tokio::test]
async fn what_would_not_fit_is_left_out_and_what_is_sent_as_it_is_has_nothing_before_it() {
    let layer = layer(vec![Arc::new(Finds)]);
    let small = layer.clone().with_limits(Limits::default().with_max_history(90));
    let model = Model::default();
    let inner = model.saying("fine");
    converse(&layer, &inner, "s", "one").await;
    converse(&small, &inner, "s", "two").await;
    assert_eq!(model.contents(1), ["one", "fine", "two"]);
    let mut reset = ask("s", "three");
    reset.headers_mut().insert("session-memory", http::HeaderValue::from_static("reset"));
    call(&layer.layer(inner), reset).await;
    assert_eq!(model.contents(2), ["three"]);
}

#[tokio::test(start_paused = true)]
async fn a_lookup_that_hangs_delays_a_request_by_the_limit_and_is_dropped() {
    let dropped = Arc::new(AtomicBool::default());
    let layer = layer(vec![Arc::new(Finds), Arc::new(Hangs(Arc::clone(&dropped))), Arc::new(Finds)]);
    let model = Model::default();
    let inner = model.saying("fine");
    converse(&layer, &inner, "s", "one").await;
    assert!(!dropped.load(Ordering::Relaxed), "nothing is looked up for a session that begins");
    let before = Instant::now();
    converse(&layer, &inner, "s", "two").await;
    assert_eq!(before.elapsed().as_millis(), 50, "all lookups share one limit");
    assert!(dropped.load(Ordering::Relaxed));
    assert_eq!(
        model.contents(1),
        ["found", "found", "one", "fine", "two"],
        "what is there at once is never too late"
    );
}
