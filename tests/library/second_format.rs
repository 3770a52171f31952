//! The seam of formats, by a format that is nothing like Chat Completions: `tests/common/lines.rs`.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::{Layer, ServiceExt};
use tower_session_memory::{
    Decision, OnDisconnect, OnMissing, RequestBody, SessionMemoryLayer,
    history::{ClientCase, Parent, Turn, TurnState},
    session::SessionKey,
    store::{DynHistoryStore, InMemoryStore},
};

use crate::{
    lines::{FORMAT, Lines},
    talk::{Answer, Talk, both, key, request, told},
};

#[tokio::test]
async fn a_session_that_the_body_names_remembers_replies_of_several_items() {
    let talk = Talk::new(Lines::default());
    talk.will_say(&["=Not much.", "=And you?"]);
    let first = talk.say("s", &["#Be brief.", "?What is up?"]).await;
    assert_eq!(told(&first), "new; client=new; turns=0; messages=1; sent=1; store=memory");
    assert_eq!(first.headers()["x-session-id"], "s");
    assert_eq!(
        first.body(),
        r#"{"end":"done","said":["=Not much.","=And you?"]}"#,
        "the upstream's own bytes"
    );
    talk.will_say(&["=Good."]);
    let second = talk.say("s", &["?Fine."]).await;
    assert!(told(&second).starts_with("hit; client=delta; turns=1; messages=4"), "{}", told(&second));
    assert_eq!(talk.saw(), ["#Be brief.", "?What is up?", "=Not much.", "=And you?", "?Fine."]);

    let loaded = talk.store.load_dyn(&key("s"), None.into()).await.unwrap();
    let turns: Vec<Turn<'_>> = loaded.records.iter().filter_map(|record| record.turn()).collect();
    assert_eq!((turns[0].format(), turns[0].sent(), turns[0].len()), (FORMAT, 1, 3));
    assert_eq!((turns[0].response_id(), turns[0].finish_reason()), (Some("reply-1"), Some("done")));
    assert_eq!((turns[1].client(), turns[1].record().parent()), (Some(ClientCase::Delta), Parent::Previous));
}

#[tokio::test]
async fn what_a_client_resends_is_recognised_by_the_formats_own_equality() {
    let talk = Talk::new(Lines::default());
    talk.will_say(&["=a1", "=a1 again"]);
    talk.say("s", &["?u1"]).await;
    talk.will_say(&["=a2"]);
    let resent = talk.say("s", &["?u1 ", "=a1", "=a1 again ", "?u2"]).await;
    assert!(told(&resent).contains("client=resend"), "{}", told(&resent));
    talk.will_say(&["=a3"]);
    let window = talk.say("s", &["=a1 again", "?u2", "=a2", "?u3"]).await;
    assert!(told(&window).contains("client=window"), "a window may begin inside a reply: {}", told(&window));
    assert_eq!(talk.saw(), ["?u1", "=a1", "=a1 again", "?u2", "=a2", "?u3"]);
    talk.will_say(&["=other"]);
    let edit = talk.say("s", &["?u1", "=a1", "=a1 again", "?else"]).await;
    assert!(told(&edit).contains("client=edit"), "{}", told(&edit));
}

#[tokio::test]
async fn one_result_may_answer_several_calls_and_an_unanswered_call_is_not_shown() {
    let talk = Talk::new(Lines::default());
    talk.will_say(&["=Let me see.", "@a", "@b"]);
    talk.say("s", &["?u1"]).await;
    talk.will_say(&["=Both are fine."]);
    talk.say("s", &["!a,b"]).await;
    assert_eq!(talk.saw(), ["?u1", "=Let me see.", "@a", "@b", "!a,b"]);
    talk.will_say(&["@c"]);
    talk.say("s", &["?u2"]).await;
    talk.will_say(&["=a3"]);
    talk.say("s", &["?u3"]).await;
    assert_eq!(talk.saw(), ["?u1", "=Let me see.", "@a", "@b", "!a,b", "=Both are fine.", "?u3"]);
}

#[tokio::test]
async fn a_reply_may_answer_its_own_call() {
    let talk = Talk::new(Lines::default());
    talk.will_say(&["@a", "!a", "=done"]);
    talk.say("s", &["?u1"]).await;
    talk.will_say(&["=a2"]);
    talk.say("s", &["?u2"]).await;
    assert_eq!(talk.saw(), ["?u1", "@a", "!a", "=done", "?u2"]);
}

#[tokio::test]
async fn a_request_that_cannot_be_read_is_still_asked_for_a_session() {
    let mut talk = Talk::new(Lines::default());
    talk.will_say(&["=a1"]);
    let off = talk.send(controlled("off", &json!({"talk": "s", "lines": ["?u1"]}))).await;
    assert_eq!((off.status().as_u16(), told(&off)), (200, ""));
    assert!(!talk.controls.lock().unwrap().iter().any(|named| *named), "our header stays here");
    talk.layer = talk.layer.on_missing_session(OnMissing::Reject);
    for (body, control) in [(json!({"lines": 5}), None), (json!({"lines": ["?u1"]}), Some("off"))] {
        let request =
            control.map_or_else(|| request("/lines", None, &body), |control| controlled(control, &body));
        let refused = talk.send(request).await;
        assert_eq!(refused.status(), 400);
        let body: Value = serde_json::from_slice(refused.body()).unwrap();
        assert!(body["oops"].as_str().unwrap().starts_with("missing_session_id: "), "{body}");
    }
    let stored = talk.store.load_dyn(&key("s"), None.into()).await.unwrap();
    assert!(stored.records.is_empty());
}

#[tokio::test]
async fn a_layer_inside_of_another_leaves_the_request_alone() {
    let store = Arc::new(InMemoryStore::new());
    let layer = || SessionMemoryLayer::from_arc(store.clone()).with_protocols(both(Lines::default()));
    let model = tower::service_fn(|_: Request<RequestBody<RequestBody<Full<Bytes>>>>| async {
        let answer = Full::new(Bytes::from(r#"{"said":["=a"],"end":"done"}"#));
        let response = Response::builder().header("content-type", "application/json");
        Ok::<_, Infallible>(response.body(answer).unwrap())
    });
    for _ in 0..2 {
        let request = Request::post("/lines").header("content-type", "application/json");
        let request = request.body(Full::new(Bytes::from(r#"{"talk":"s","lines":["?u"]}"#))).unwrap();
        let response = layer().layer(layer().layer(model)).oneshot(request).await.unwrap();
        response.into_body().collect().await.unwrap();
    }
    let stored = DynHistoryStore::load_dyn(&*store, &key("s"), None.into()).await.unwrap();
    assert_eq!(stored.records.len(), 2, "each turn is stored once");
}

#[tokio::test]
async fn the_head_counts_before_the_body_and_a_body_that_names_nothing_passes_untouched() {
    let talk = Talk::new(Lines::default());
    talk.will_say(&["=a1"]);
    let body = json!({"talk": "in the body", "lines": ["?u1"]});
    let named = talk.post("/lines", Some("head"), body).await;
    assert_eq!(named.headers()["x-session-id"], "head");
    talk.will_say(&["=a1"]);
    let unnamed = talk.post("/lines", None, json!({"lines": ["?u1"]})).await;
    assert_eq!((told(&unnamed), unnamed.headers().get("x-session-id")), ("", None));
    talk.will_say(&["=a1"]);
    let elsewhere = talk.post("/elsewhere", None, json!({"talk": "s", "lines": ["?u1"]})).await;
    assert_eq!(told(&elsewhere), "", "another path is no business of the format");

    let mut issuing = Talk::new(Lines::default());
    issuing.layer = issuing.layer.on_missing_session(OnMissing::Issue);
    issuing.will_say(&["=a1"]);
    let issued = issuing.post("/lines", None, json!({"lines": ["?u1"]})).await;
    assert!(told(&issued).starts_with("new;"), "{}", told(&issued));
}

#[tokio::test]
async fn a_refusal_has_the_formats_own_shape() {
    let talk = Talk::new(Lines::default());
    let refused = talk.say("two words", &["?u1"]).await;
    assert_eq!(refused.status(), 400);
    let body: Value = serde_json::from_slice(refused.body()).unwrap();
    assert!(body["oops"].as_str().unwrap().starts_with("invalid_session_id: "), "{body}");
    assert!(talk.seen.lock().unwrap().is_empty(), "nothing is asked");
}

#[tokio::test]
async fn the_decision_stands_in_the_extensions_of_request_and_response() {
    let talk = Talk::new(Lines::default());
    talk.will_say(&["=a1"]);
    let response = talk.say("s", &["?u1"]).await;
    let decisions = talk.decisions.lock().unwrap().clone();
    let [Decision::Remembered(asked)] = &decisions[..] else { panic!("{decisions:?}") };
    assert_eq!((asked.client, asked.format, asked.turns, asked.sent), (ClientCase::New, FORMAT, 0, 1));
    assert_eq!(response.extensions().get::<SessionKey>(), Some(&key("s")));
    assert_eq!(response.extensions().get::<Decision>(), Some(&decisions[0]));
}

fn chat(text: &str) -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": text}]})
}

async fn chat_turn(talk: &Talk) {
    let message = json!({"role": "assistant", "content": "a1"});
    let reply = json!({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]});
    talk.will_answer(Answer::Json(reply));
    talk.post("/v1/chat/completions", Some("s"), chat("u1")).await;
}

#[tokio::test]
async fn a_conversation_in_another_format_is_translated_or_left_alone() {
    let talk = Talk::new(Lines { understands_chat: true });
    chat_turn(&talk).await;
    talk.will_say(&["=a2"]);
    let translated = talk.say("s", &["?u2"]).await;
    assert!(told(&translated).starts_with("hit; client=delta; turns=1"), "{}", told(&translated));
    assert_eq!(talk.saw(), ["?u1", "=a1", "?u2"]);

    let talk = Talk::new(Lines::default());
    chat_turn(&talk).await;
    talk.will_say(&["=a2"]);
    let alone = talk.say("s", &["?u2"]).await;
    assert_eq!(told(&alone), "bypass; reason=format");
    assert_eq!(talk.saw(), ["?u2"], "never spliced");
    let loaded = talk.store.load_dyn(&key("s"), None.into()).await.unwrap();
    assert_eq!(loaded.records.len(), 1, "and not recorded into it");
}

#[tokio::test]
async fn a_layer_that_does_not_speak_a_sessions_format_names_it() {
    let mut talk = Talk::new(Lines::default());
    talk.will_say(&["=a1"]);
    talk.say("s", &["?u1"]).await;
    talk.layer = SessionMemoryLayer::from_arc(Arc::clone(&talk.store));
    let refused = talk.post("/v1/chat/completions", Some("s"), chat("u2")).await;
    assert_eq!(refused.status(), 409);
    let body: Value = serde_json::from_slice(refused.body()).unwrap();
    assert_eq!(body["error"]["code"], "unreadable_session");
    assert!(body["error"]["message"].as_str().unwrap().contains("test.lines"), "{body}");
}

/// A request that says how it wants its session handled.
fn controlled(control: &'static str, body: &Value) -> Request<Full<Bytes>> {
    let mut request = request("/lines", None, body);
    request.headers_mut().insert("session-memory", HeaderValue::from_static(control));
    request
}

#[tokio::test]
async fn a_session_that_the_body_names_is_read_without_being_recorded() {
    let talk = Talk::new(Lines::default());
    talk.will_say(&["=a1"]);
    talk.say("s", &["?u1"]).await;
    talk.will_say(&["=a2"]);
    let read = talk.send(controlled("read", &json!({"talk": "s", "lines": ["?u2"]}))).await;
    assert!(told(&read).starts_with("hit; client=delta; turns=1"), "{}", told(&read));
    assert_eq!(talk.saw(), ["?u1", "=a1", "?u2"]);
    talk.will_say(&["=a3"]);
    talk.say("s", &["?u3"]).await;
    assert_eq!(talk.saw(), ["?u1", "=a1", "?u3"], "what was only read is not in it");
}

#[tokio::test]
async fn a_signed_request_whose_body_would_name_a_session_passes_untouched() {
    let talk = Talk::new(Lines::default());
    for session in ["s", "s"] {
        talk.will_say(&["=a"]);
        let mut request = request("/lines", None, &json!({"talk": session, "lines": ["?u"]}));
        request.headers_mut().insert("x-amz-content-sha256", HeaderValue::from_static("0"));
        let response = talk.send(request).await;
        assert_eq!((response.status().as_u16(), told(&response)), (200, ""));
        assert_eq!(talk.saw(), ["?u"]);
    }
    assert!(talk.store.load_dyn(&key("s"), None.into()).await.unwrap().records.is_empty());
}

#[cfg(feature = "compression")]
#[tokio::test]
async fn a_session_is_read_from_a_body_that_comes_compressed() {
    let talk = Talk::new(Lines::default());
    for (asked, expected) in [("?u1", vec!["?u1"]), ("?u2", vec!["?u1", "=a", "?u2"])] {
        talk.will_say(&["=a"]);
        let body = json!({"talk": "s", "lines": [asked]}).to_string();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, body.as_bytes()).unwrap();
        let request = Request::post("/lines")
            .header("content-type", "application/json")
            .header("content-encoding", "gzip")
            .body(Full::new(Bytes::from(gzip.finish().unwrap())))
            .unwrap();
        let response = talk.send(request).await;
        assert_eq!(response.headers()["x-session-id"], "s");
        let seen = talk.seen.lock().unwrap().last().cloned().unwrap();
        assert_eq!(seen, json!({"talk": "s", "lines": expected}), "it goes upstream decoded");
    }
}

#[tokio::test]
async fn a_client_that_leaves_keeps_whole_lines_in_its_session() {
    for (reaction, expected) in [
        (OnDisconnect::Keep, Some(TurnState::Interrupted)),
        (OnDisconnect::Drain, Some(TurnState::Complete)),
        (OnDisconnect::Discard, None),
    ] {
        let mut talk = Talk::new(Lines::default());
        talk.layer = talk.layer.on_disconnect(reaction);
        talk.will_stream(&["=a1", "@call", "=a2"], reaction == OnDisconnect::Drain);
        let asked = request("/lines", None, &json!({"talk": "s", "lines": ["?u1"]}));
        let mut response = talk.begin(asked).await;
        for _ in 0..2 {
            response.frame().await.unwrap().unwrap();
        }
        drop(response);
        talk.layer.commits().drain(Duration::from_secs(20)).await;
        let loaded = talk.store.load_dyn(&key("s"), None.into()).await.unwrap();
        let state = loaded.records.iter().next().map(|record| record.turn().unwrap().state());
        assert_eq!(state, expected, "{reaction:?}");
    }
}
