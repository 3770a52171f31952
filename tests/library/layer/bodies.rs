//! The response body: untouched, undelayed, and held only at its end.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tokio_test_poll::poll_once;
use tower::Layer;
use tower_session_memory::{
    SessionMemoryLayer,
    history::{Format, Item},
    protocol::{
        Canonical, Draft, ErrorBody, Insertion, Protocol, Recorder, Reply, ReplyKind, ReplyLimits, Route,
        Skip, Uneditable, openai_chat::OpenAiChat,
    },
};

use crate::layer::support::{
    DONE, EVENTS, FINISH, JSON, Model, Moody, Tells, ask, call, delta, reply, scripted, scripted_that,
};

/// Polls a future once.
mod tokio_test_poll {
    use std::{future::Future, pin::Pin, task::Poll};

    pub async fn poll_once<F: Future + Unpin>(mut future: F) -> Poll<F::Output> {
        std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut future).poll(cx))).await
    }
}

#[tokio::test]
async fn the_end_of_a_stream_is_held_until_the_turn_is_stored() {
    let store = Moody::gated();
    let (script, body) = scripted(None);
    let layer = SessionMemoryLayer::new(store.clone()).with_commit_wait(Duration::from_secs(60));
    let service = layer.layer(Model::default().answering(EVENTS, vec![body]));
    let mut body = call(&service, ask("s", "hi")).await.into_body();

    let first = delta("Hello");
    script.data(first.clone());
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), first, "a delta is not delayed");
    script.data([FINISH, DONE].concat());
    assert_eq!(
        body.frame().await.unwrap().unwrap().into_data().unwrap(),
        FINISH,
        "only the last line is held"
    );

    assert!(poll_once(body.frame()).await.is_pending(), "[DONE] must wait for the store");
    assert!(
        !body.is_end_stream() && body.size_hint().lower() == DONE.len() as u64,
        "a held frame is announced"
    );
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(poll_once(body.frame()).await.is_pending());
    assert!(store.turns("s").await.is_empty());

    store.gate.add_permits(1);
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), DONE);
    assert_eq!(store.turns("s").await.len(), 1, "when the end is out, the turn is in");
}

#[tokio::test]
async fn a_requests_body_is_not_kept_while_its_reply_comes() {
    /// Bytes that are in memory while this is.
    struct Buffer {
        bytes: Vec<u8>,
        _kept: Arc<()>,
    }
    impl AsRef<[u8]> for Buffer {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }
    let store = Moody::new();
    let (script, reply) = scripted(None);
    let service =
        SessionMemoryLayer::new(store.clone()).layer(Model::default().answering(EVENTS, vec![reply]));
    let kept = Arc::new(());
    let (head, body) = ask("s", "hi").into_parts();
    let bytes = body.collect().await.unwrap().to_bytes().to_vec();
    let body = Buffer { bytes, _kept: Arc::clone(&kept) };
    let request = http::Request::from_parts(head, Full::new(Bytes::from_owner(body)));
    let mut body = call(&service, request).await.into_body();
    script.data(delta("Hello"));
    body.frame().await.unwrap().unwrap();
    assert_eq!(Arc::strong_count(&kept), 1, "the body is still in memory");

    script.data([FINISH, DONE].concat());
    drop(script);
    while let Some(frame) = body.frame().await {
        frame.unwrap();
    }
    let sent = store.turns("s").await[0].turn().unwrap().items().next().unwrap();
    assert_eq!(sent.raw(), r#"{"content":"hi","role":"user"}"#);
}

#[tokio::test]
async fn a_done_line_split_over_frames_is_held_from_where_it_is_recognised() {
    let store = Moody::gated();
    let (script, body) = scripted(None);
    let service =
        SessionMemoryLayer::new(store.clone()).layer(Model::default().answering(EVENTS, vec![body]));
    let mut body = call(&service, ask("s", "hi")).await.into_body();
    script.data([&delta("x"), FINISH, "data: [DO"].concat());
    script.data("NE]\n\n");
    body.frame().await.unwrap().unwrap();
    assert!(poll_once(body.frame()).await.is_pending(), "the line's end must wait");
    store.gate.add_permits(1);
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "NE]\n\n");
}

#[tokio::test]
async fn a_server_that_drops_the_body_at_its_content_length_finds_the_turn_stored() {
    let store = Moody::new();
    let text = reply("short");
    let (script, body) = scripted(Some(text.len() as u64));
    let service = SessionMemoryLayer::new(store.clone()).layer(Model::default().answering(JSON, vec![body]));
    let response = call(&service, ask("s", "hi")).await;
    assert_eq!(response.body().size_hint().exact(), Some(text.len() as u64));
    let mut body = response.into_body();
    let (start, end) = text.split_at(10);
    script.data(start.to_owned());
    script.data(end.to_owned());
    let mut received = Vec::new();
    while received.len() < text.len() {
        assert!(!body.is_end_stream(), "the end is not out yet");
        assert_eq!(body.size_hint().exact(), Some((text.len() - received.len()) as u64));
        received.extend_from_slice(&body.frame().await.unwrap().unwrap().into_data().unwrap());
    }
    assert!(body.is_end_stream());
    drop(body); // never polled to `None`, as an HTTP/1 server does
    assert_eq!(store.turns("s").await.len(), 1);
    assert_eq!(received, text.as_bytes());
}

#[tokio::test]
async fn a_stream_without_done_is_held_at_its_last_byte_however_that_shows() {
    for tells in [Tells::Length, Tells::End] {
        let store = Moody::gated();
        let words = delta("x");
        let (script, body) = scripted_that(tells, Some((words.len() + FINISH.len()) as u64));
        let service =
            SessionMemoryLayer::new(store.clone()).layer(Model::default().answering(EVENTS, vec![body]));
        let mut body = call(&service, ask("s", "hi")).await.into_body();
        script.data(words);
        script.data(FINISH);
        body.frame().await.unwrap().unwrap();
        assert!(
            poll_once(body.frame()).await.is_pending(),
            "{tells:?}: the last byte must wait for the store"
        );
        store.gate.add_permits(1);
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), FINISH);
        drop(body); // never polled to `None`, as a server does that has sent all
        assert_eq!(store.turns("s").await.len(), 1, "{tells:?}: when the last byte is out, the turn is in");
    }
}

#[tokio::test]
async fn a_clean_end_without_done_is_held_too_and_trailers_come_after_the_commit() {
    let store = Moody::gated();
    let (script, body) = scripted(None);
    let service =
        SessionMemoryLayer::new(store.clone()).layer(Model::default().answering(EVENTS, vec![body]));
    let mut body = call(&service, ask("s", "hi")).await.into_body();
    script.data([&delta("x"), FINISH].concat());
    script.trailers("x-checksum", "abc");
    drop(script);
    body.frame().await.unwrap().unwrap();
    assert!(poll_once(body.frame()).await.is_pending(), "trailers are terminal bytes");
    store.gate.add_permits(1);
    let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(trailers["x-checksum"], "abc");
    assert!(body.frame().await.is_none());
    assert_eq!(store.turns("s").await.len(), 1);
}

#[tokio::test]
async fn a_cut_upstream_is_a_cut_reply_and_no_turn() {
    for before in ["", FINISH] {
        let store = Moody::new();
        let (script, body) = scripted(None);
        let layer = SessionMemoryLayer::new(store.clone());
        let service = layer.layer(Model::default().answering(EVENTS, vec![body]));
        let mut body = call(&service, ask("s", "hi")).await.into_body();
        script.data([&delta("Hel"), before].concat());
        script.fail();
        assert!(body.frame().await.unwrap().is_ok());
        assert!(body.frame().await.unwrap().is_err(), "a cut never becomes a clean end");
        drop(body);
        layer.commits().drain(Duration::from_secs(5)).await;
        assert!(store.turns("s").await.is_empty());
    }
}

#[tokio::test]
async fn a_slow_reader_holds_the_upstream_back() {
    let (script, body) = scripted(None);
    let service = SessionMemoryLayer::new(Moody::new()).layer(Model::default().answering(EVENTS, vec![body]));
    let mut body = call(&service, ask("s", "hi")).await.into_body();
    for _ in 0..1000 {
        script.data(delta("x"));
    }
    for taken in 1..=10 {
        body.frame().await.unwrap().unwrap();
        tokio::task::yield_now().await;
        assert_eq!(script.polled.load(Ordering::SeqCst), taken, "nothing is read ahead of the client");
    }
}

#[tokio::test]
async fn a_reply_past_the_recording_limit_is_forwarded_whole_and_not_stored() {
    let store = Moody::new();
    let layer = SessionMemoryLayer::new(store.clone())
        .with_limits(tower_session_memory::Limits::default().with_max_reply(1000).with_max_event(1000));
    for (content_type, text) in [
        (JSON, reply(&"x".repeat(5000))),
        (
            EVENTS,
            [delta(&"x".repeat(600)), delta(&"y".repeat(600)), FINISH.to_owned(), DONE.to_owned()].concat(),
        ),
        (EVENTS, [delta(&"z".repeat(2000)), FINISH.to_owned(), DONE.to_owned()].concat()),
    ] {
        let (script, body) = scripted(None);
        let service = layer.layer(Model::default().answering(content_type, vec![body]));
        text.as_bytes().chunks(100).for_each(|piece| script.data(Bytes::copy_from_slice(piece)));
        drop(script);
        let body = call(&service, ask("s", "hi")).await.into_body().collect().await.unwrap().to_bytes();
        assert!(body == text, "the reply is the upstream's, byte for byte");
        assert!(store.turns("s").await.is_empty());
    }
}

#[tokio::test]
async fn what_a_reply_is_shows_in_its_first_byte_not_in_its_content_type() {
    let store = Moody::new();
    let layer = SessionMemoryLayer::new(store.clone());
    let stream = [delta("streamed"), FINISH.to_owned(), DONE.to_owned()].concat();
    for (n, (content_type, text)) in
        [(JSON, stream.clone()), (EVENTS, reply("whole")), ("text/plain", stream)].into_iter().enumerate()
    {
        let (script, body) = scripted(None);
        script.data(text);
        drop(script);
        let service = layer.layer(Model::default().answering(content_type, vec![body]));
        call(&service, ask("s", "hi")).await.into_body().collect().await.unwrap();
        assert_eq!(store.turns("s").await.len(), n + 1, "{content_type}");
    }
}

#[cfg(feature = "compression")]
mod compressed {
    use std::io::Write;

    use super::*;

    /// What the client gets of this stream if it comes compressed, which it must get unchanged.
    async fn pass(layer: &SessionMemoryLayer, stream: &str) {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(stream.as_bytes()).unwrap();
        let packed = gzip.finish().unwrap();
        let sent = packed.clone();
        let inner = tower::service_fn(move |_: Request| {
            let (script, body) = scripted(None);
            sent.chunks(7).for_each(|piece| script.data(Bytes::copy_from_slice(piece)));
            let response =
                http::Response::builder().header("content-type", EVENTS).header("content-encoding", "gzip");
            std::future::ready(Ok::<_, std::convert::Infallible>(response.body(body).unwrap()))
        });
        let body = call(&layer.layer(inner), ask("s", "hi")).await.into_body();
        assert_eq!(body.collect().await.unwrap().to_bytes(), packed);
    }

    type Request = http::Request<tower_session_memory::RequestBody<http_body_util::Full<Bytes>>>;

    #[tokio::test]
    async fn a_compressed_reply_is_recorded_from_a_copy_and_forwarded_as_it_is() {
        let store = Moody::new();
        let layer = SessionMemoryLayer::new(store.clone());
        pass(&layer, &[&delta("packed"), FINISH, DONE].concat()).await;
        let turns = store.turns("s").await;
        let reply = turns[0].turn().unwrap().items().last().unwrap();
        assert_eq!(reply.raw(), r#"{"role":"assistant","content":"packed"}"#);
    }

    #[tokio::test]
    async fn a_reply_that_is_a_bomb_is_not_unpacked_to_its_end() {
        let store = Moody::new();
        let limits = tower_session_memory::Limits::default().with_max_reply(10_000);
        let layer = SessionMemoryLayer::new(store.clone()).with_limits(limits);
        // A comment is no part of an event, so no other limit stops it.
        for (comment, stored) in [(20_000, 1), (50_000, 1)] {
            let comment = format!(": {}\n\n", "0".repeat(comment));
            pass(&layer, &[&comment, &delta("packed"), FINISH, DONE].concat()).await;
            layer.commits().drain(Duration::from_secs(5)).await;
            assert_eq!(store.turns("s").await.len(), stored);
        }
    }
}

#[tokio::test]
async fn an_error_status_is_passed_on_and_not_recorded() {
    let store = Moody::new();
    let layer = SessionMemoryLayer::new(store.clone());
    let inner = tower::service_fn(
        |_: http::Request<tower_session_memory::RequestBody<http_body_util::Full<Bytes>>>| async {
            let (script, body) = scripted(None);
            script.data(reply("looks like an answer"));
            let response =
                http::Response::builder().status(429).header("retry-after", "7").header("content-type", JSON);
            Ok::<_, std::convert::Infallible>(response.body(body).unwrap())
        },
    );
    let response = call(&layer.layer(inner), ask("s", "hi")).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["retry-after"]),
        (429, &"7".parse().unwrap())
    );
    assert!(response.headers()["session-memory"].to_str().unwrap().ends_with("unrecorded=status"));
    response.into_body().collect().await.unwrap();
    assert!(store.turns("s").await.is_empty());
}

/// A protocol with a fault of ours in it.
struct Faulty(OpenAiChat);

/// Panics at the first byte, or at the end.
struct Panics {
    at_once: bool,
}

impl Protocol for Faulty {
    fn format(&self) -> Format {
        self.0.format()
    }

    fn route(&self, parts: &http::request::Parts) -> Route {
        self.0.route(parts)
    }

    fn read(&self, body: &Bytes) -> Result<Draft, Uneditable> {
        self.0.read(body)
    }

    fn edit(&self, draft: &Draft, insertion: &Insertion<'_>) -> Vec<Bytes> {
        self.0.edit(draft, insertion)
    }

    fn recorder(&self, kind: ReplyKind, _: ReplyLimits) -> Box<dyn Recorder> {
        Box::new(Panics { at_once: kind == ReplyKind::Json })
    }

    fn item(&self, raw: Bytes) -> Option<Item> {
        self.0.item(raw)
    }

    fn canonical(&self, item: &Item) -> Canonical {
        self.0.canonical(item)
    }

    fn error_body(&self, error: &ErrorBody<'_>) -> Bytes {
        self.0.error_body(error)
    }
}

impl Recorder for Panics {
    fn feed(&mut self, _: &[u8]) -> Option<usize> {
        assert!(!self.at_once, "the recorder panics while it listens");
        None
    }

    fn is_finished(&self) -> bool {
        false
    }

    fn finish(&mut self) -> Result<Reply, Skip> {
        panic!("the recorder panics at the end")
    }

    fn interrupt(&mut self) -> Result<Reply, Skip> {
        panic!("the recorder panics when the client leaves")
    }
}

#[tokio::test]
async fn a_panic_while_a_reply_is_recorded_costs_the_turn_and_not_the_reply() {
    let store = Moody::new();
    let layer = SessionMemoryLayer::new(store.clone())
        .with_protocols([Arc::new(Faulty(OpenAiChat::new())) as Arc<dyn Protocol>]);
    for (content_type, text) in
        [(JSON, reply("whole")), (EVENTS, [&delta("streamed"), FINISH, DONE].concat())]
    {
        let (script, body) = scripted(None);
        text.as_bytes().chunks(20).for_each(|piece| script.data(Bytes::copy_from_slice(piece)));
        drop(script);
        let service = layer.layer(Model::default().answering(content_type, vec![body]));
        let body = call(&service, ask("s", "hi")).await.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, text);
    }
    let (script, body) = scripted(None);
    script.data(delta("left"));
    let service = layer.layer(Model::default().answering(EVENTS, vec![body]));
    let mut body = call(&service, ask("s", "hi")).await.into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    assert!(store.turns("s").await.is_empty());
}

#[tokio::test]
async fn a_reply_keeps_its_own_spelling_on_its_way_and_in_the_log() {
    for message in [
        r#"{ "role":"assistant",  "content" : "caf\u00e9 \/", "x":1.50, "a":[ ] }"#,
        // What parsers refuse or change: a number out of range, half a character, a name twice.
        r#"{ "role":"assistant",  "content" : "\ud800", "x":1e400, "y":1, "y":2 }"#,
    ] {
        let text = format!(
            "{{\"usage\":{{ }},\n \"choices\" : [ {{\"finish_reason\":\"stop\",\"message\":{message},\"index\":0}}],\"id\":1}}\n"
        );
        let store = Moody::new();
        let (script, body) = scripted(Some(text.len() as u64));
        script.data(text.clone());
        drop(script);
        let inner = Model::default().answering(JSON, vec![body]);
        let service = SessionMemoryLayer::new(store.clone()).layer(inner);
        let body = call(&service, ask("s", "hi")).await.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, text, "the reply is the upstream's, byte for byte");
        let turns = store.turns("s").await;
        assert_eq!(
            turns[0].turn().unwrap().items().last().unwrap().raw(),
            message,
            "and so is what will be replayed"
        );
    }
}

#[tokio::test]
async fn a_reply_of_another_content_type_is_passed_on_and_said_not_to_be_recorded() {
    let store = Moody::new();
    let layer = SessionMemoryLayer::new(store.clone());
    for content_type in ["text/html", "audio/mpeg", "application/octet-stream"] {
        let (script, body) = scripted(None);
        script.data(reply("looks like an answer"));
        drop(script);
        let response =
            call(&layer.layer(Model::default().answering(content_type, vec![body])), ask("s", "hi")).await;
        let told = response.headers()["session-memory"].to_str().unwrap().to_owned();
        assert!(told.ends_with("; unrecorded=content_type"), "{content_type}: {told}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, reply("looks like an answer"));
    }
    layer.commits().drain(Duration::from_secs(5)).await;
    assert!(store.turns("s").await.is_empty());
}
