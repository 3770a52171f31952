//! The seam of formats, by a format that is nothing like Chat Completions: `tests/common/lines.rs`.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::{Layer, ServiceExt};
use tower_session_memory::{
    Decision, OnMissing, RequestBody, SessionMemoryLayer,
    history::{ClientCase, Parent, Turn},
    protocol::{Protocol, openai_chat::OpenAiChat},
    session::{Principal, SessionKey},
    store::{DynHistoryStore, InMemoryStore},
};

use crate::lines::{FORMAT, Lines};

/// A model of the format that answers each request with the next of these lists of lines.
struct Talk {
    layer: SessionMemoryLayer,
    store: Arc<dyn DynHistoryStore>,
    answers: Arc<Mutex<Vec<Value>>>,
    seen: Arc<Mutex<Vec<Value>>>,
    decisions: Arc<Mutex<Vec<Decision>>>,
    /// Whether each request still had our control header.
    controls: Arc<Mutex<Vec<bool>>>,
}

fn key(session: &str) -> SessionKey {
    SessionKey::new("default", Principal::anonymous(), session.parse().unwrap())
}

fn both(lines: Lines) -> [Arc<dyn Protocol>; 2] {
    [Arc::new(OpenAiChat::new()), Arc::new(lines)]
}

impl Talk {
    fn new(lines: Lines) -> Self {
        let store: Arc<dyn DynHistoryStore> = Arc::new(InMemoryStore::new());
        let layer = SessionMemoryLayer::from_arc(Arc::clone(&store)).with_protocols(both(lines));
        let (answers, seen, decisions, controls) = Default::default();
        Self { layer, store, answers, seen, decisions, controls }
    }

    fn will_say(&self, lines: &[&str]) {
        self.answers.lock().unwrap().insert(0, json!({"said": lines, "end": "done"}));
    }

    async fn post(&self, path: &str, session: Option<&str>, body: Value) -> Response<Bytes> {
        self.post_with(path, session, body, None).await
    }

    async fn post_with(
        &self,
        path: &str,
        session: Option<&str>,
        body: Value,
        control: Option<&str>,
    ) -> Response<Bytes> {
        let (answers, seen, decisions) = (self.answers.clone(), self.seen.clone(), self.decisions.clone());
        let controls = self.controls.clone();
        let model = tower::service_fn(move |request: Request<RequestBody<Full<Bytes>>>| {
            let (answers, seen, decisions) = (answers.clone(), seen.clone(), decisions.clone());
            controls.lock().unwrap().push(request.headers().contains_key("session-memory"));
            async move {
                decisions.lock().unwrap().extend(request.extensions().get::<Decision>().cloned());
                let body = request.into_body().collect().await.unwrap().to_bytes();
                seen.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
                let answer = answers.lock().unwrap().pop().expect("an answer is left");
                let response = Response::builder().header("content-type", "application/json");
                Ok::<_, Infallible>(response.body(Full::new(Bytes::from(answer.to_string()))).unwrap())
            }
        });
        let mut request = Request::post(path).header("content-type", "application/json");
        if let Some(session) = session {
            request = request.header("x-session-id", session);
        }
        if let Some(control) = control {
            request = request.header("session-memory", control);
        }
        let request = request.body(Full::new(Bytes::from(body.to_string()))).unwrap();
        let (head, body) = self.layer.layer(model).oneshot(request).await.unwrap().into_parts();
        Response::from_parts(head, body.collect().await.unwrap().to_bytes())
    }

    async fn say(&self, session: &str, lines: &[&str]) -> Response<Bytes> {
        self.post("/lines", None, json!({"talk": session, "lines": lines})).await
    }

    /// The lines of the newest request.
    fn saw(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        let lines = seen.last().unwrap()["lines"].as_array().unwrap();
        lines.iter().map(|line| line.as_str().unwrap().to_owned()).collect()
    }
}

fn told(response: &Response<Bytes>) -> &str {
    response.headers().get("session-memory").map_or("", |value| value.to_str().unwrap())
}

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
    let off = talk.post_with("/lines", None, json!({"talk": "s", "lines": ["?u1"]}), Some("off")).await;
    assert_eq!((off.status().as_u16(), told(&off)), (200, ""));
    assert!(!talk.controls.lock().unwrap().iter().any(|named| *named), "our header stays here");
    talk.layer = talk.layer.on_missing_session(OnMissing::Reject);
    for (body, control) in [(json!({"lines": 5}), None), (json!({"lines": ["?u1"]}), Some("off"))] {
        let refused = talk.post_with("/lines", None, body, control).await;
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
    talk.answers.lock().unwrap().insert(0, reply);
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
