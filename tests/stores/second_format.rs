//! The second format through every store, plain and inside all wrappers: nothing below the seam knows a format.

use std::{sync::Arc, time::Duration};

use http_body_util::BodyExt;
use serde_json::json;
use tower_session_memory::{history::TurnState, store::DynHistoryStore};

use crate::{
    lines::{FORMAT, Lines},
    talk::{Talk, key, request, told},
    wrappers::{
        conformance::all,
        inside::{Inside, on_every_store},
    },
};

on_every_store! {
    a_conversation_goes_on_whatever_it_came_as
    a_conversation_goes_on_inside_all_wrappers
}

async fn a_conversation_goes_on_whatever_it_came_as<I: Inside>() {
    let inside = I::new().await;
    converse(&|| Arc::new(inside.store())).await;
}

async fn a_conversation_goes_on_inside_all_wrappers<I: Inside>() {
    let inside = I::new().await;
    converse(&|| Arc::new(all(inside.store()))).await;
}

/// A reply as JSON, one as a stream, one that the client leaves, and a branch. Each request comes to another replica.
async fn converse(store: &dyn Fn() -> Arc<dyn DynHistoryStore>) {
    let replica = || Talk::on(store(), Lines::default());
    let talk = replica();
    talk.will_say(&["=Let me see.", "@a", "@b"]);
    talk.say("s", &["#Be brief.", "?u1"]).await;
    let talk = replica();
    talk.will_stream(&["=a1", "=a1 too"], true);
    let second = talk.say("s", &["!a,b"]).await;
    assert!(told(&second).starts_with("hit; client=delta; turns=1; messages=5"), "{}", told(&second));
    assert_eq!(talk.saw(), ["#Be brief.", "?u1", "=Let me see.", "@a", "@b", "!a,b"]);

    let talk = replica();
    talk.will_stream(&["=a2", "=never read"], false);
    let mut left = talk.begin(request("/lines", None, &json!({"talk": "s", "lines": ["?u2"]}))).await;
    left.frame().await.unwrap().unwrap();
    drop(left);
    assert_eq!(talk.layer.commits().drain(Duration::from_secs(20)).await.pending, 0);

    let talk = replica();
    talk.will_say(&["=a3"]);
    talk.say("s", &["?u3"]).await;
    let all =
        ["#Be brief.", "?u1", "=Let me see.", "@a", "@b", "!a,b", "=a1", "=a1 too", "?u2", "=a2", "?u3"];
    assert_eq!(talk.saw(), all);

    let talk = replica();
    talk.will_say(&["=a2 anew"]);
    let edit = ["?u1", "=Let me see.", "@a", "@b", "!a,b", "=a1", "=a1 too", "?u2 anew"];
    let edited = talk.say("s", &edit).await;
    assert!(told(&edited).contains("client=edit"), "{}", told(&edited));
    let talk = replica();
    talk.will_say(&["=a4"]);
    talk.say("s", &["?u4"]).await;
    assert_eq!(talk.saw(), [&["#Be brief."], &edit[..], &["=a2 anew", "?u4"]].concat());

    let loaded = store().load_dyn(&key("s"), None.into()).await.unwrap();
    let turns: Vec<_> = loaded.records.iter().map(|record| record.turn().unwrap()).collect();
    assert!(turns.iter().all(|turn| turn.format() == FORMAT && turn.response_id() == Some("reply-1")));
    let interrupted: Vec<_> = turns.iter().map(|turn| turn.state() == TurnState::Interrupted).collect();
    assert_eq!(interrupted, [false, false, true, false, false, false]);
}
