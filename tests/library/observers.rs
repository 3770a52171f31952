//! Observers: what they see, and that they cost a request nothing.

use std::{
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use tower_session_memory::{
    Decision, Observer, SessionMemoryLayer,
    history::{ClientCase, Record, RecordId},
    session::SessionKey,
};

use crate::layer::support::{Model, Moody, converse, key};

#[derive(Clone, Default)]
struct Noted {
    decided: Arc<Mutex<Vec<(SessionKey, ClientCase)>>>,
    committed: Arc<Mutex<Vec<(SessionKey, RecordId)>>>,
}

impl Observer for Noted {
    fn decided(&self, key: &SessionKey, decision: &Decision) {
        let Decision::Remembered(remembered) = decision else { panic!("{decision:?}") };
        self.decided.lock().unwrap().push((key.clone(), remembered.client));
    }

    fn committed(&self, key: &SessionKey, record: &Record) {
        self.committed.lock().unwrap().push((key.clone(), record.id()));
    }
}

struct Panics;

impl Observer for Panics {
    fn decided(&self, _: &SessionKey, _: &Decision) {
        panic!("an observer panics");
    }
}

/// Waits in its first call until it is let go.
struct Slow(Mutex<mpsc::Receiver<()>>);

impl Observer for Slow {
    fn decided(&self, _: &SessionKey, _: &Decision) {
        let _ = self.0.lock().unwrap().recv_timeout(Duration::from_secs(20));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn observers_see_every_decision_and_commit_in_order_although_one_panics() {
    let (store, noted) = (Moody::new(), Noted::default());
    let layer = SessionMemoryLayer::new(store.clone()).with_observer(Panics).with_observer(noted.clone());
    let inner = Model::default().saying("fine");
    for text in ["one", "two", "three"] {
        converse(&layer, &inner, "s", text).await;
    }
    let report = layer.commits().drain(Duration::from_secs(20)).await;
    assert_eq!(report.pending, 0, "a drain waits for what is observed");
    let cases: Vec<_> = noted.decided.lock().unwrap().iter().map(|(_, case)| *case).collect();
    assert_eq!(cases, [ClientCase::New, ClientCase::Delta, ClientCase::Delta]);
    let stored: Vec<_> = store.turns("s").await.iter().map(|record| (key("s"), record.id())).collect();
    assert_eq!(*noted.committed.lock().unwrap(), stored);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_slow_observer_delays_no_request() {
    let (let_go, waits) = mpsc::channel();
    let layer = SessionMemoryLayer::new(Moody::new()).with_observer(Slow(Mutex::new(waits)));
    let inner = Model::default().saying("fine");
    let many = async {
        for _ in 0..600 {
            converse(&layer, &inner, "s", "hello").await;
        }
    };
    tokio::time::timeout(Duration::from_secs(15), many).await.expect("1,200 events wait for nothing");
    drop(let_go);
    assert_eq!(layer.commits().drain(Duration::from_secs(20)).await.pending, 0);
}
