//! Records that other versions of the program, or other formats, write: put into a store by hand, read through the program.

use bytes::Bytes;
use serde_json::{Value, json};
use tower_session_memory::{
    history::{Record, RecordId},
    session::{Principal, SessionKey},
    store::Appended,
};

use crate::{
    common::*,
    place::{Kind, Place},
};

on_every_store! { on():
    a_record_of_an_unknown_kind_is_kept_and_is_part_of_no_conversation
    a_reply_of_two_items_is_replayed_whole
    an_item_that_answers_two_calls_is_replayed_with_them
    a_turn_in_an_unknown_format_is_never_spliced_and_a_reset_goes_on
    a_branch_may_leave_a_turn_at_any_item
    a_record_of_another_kind_may_have_members_of_any_name
}

/// A session that is written by hand, and a program that reads it.
struct Written {
    upstream: Upstream,
    proxy: Proxy,
    key: SessionKey,
    /// Its server is shared with tests that need it alone.
    _place: Place,
}

impl Written {
    async fn new(kind: Kind) -> Self {
        let place = Place::new(kind).await;
        let upstream = Upstream::start().await.unwrap();
        let proxy = place.launch(&upstream).start().await;
        let key = SessionKey::new(place.namespace.as_str(), Principal::anonymous(), "s".parse().unwrap());
        Self { upstream, proxy, key, _place: place }
    }

    /// Appends a record that is no build's: the members of its header, and its body.
    async fn append(&self, members: Value, body: &str) -> RecordId {
        let id = RecordId::new();
        let mut header =
            json!({"v": "1.0", "kind": "turn", "id": id, "session": self.key.digest().to_hex(), "at": 1});
        for (name, value) in members.as_object().unwrap() {
            header[name] = value.clone();
        }
        let bytes = Bytes::from(format!("{header}\n{body}"));
        let record = Record::decode(bytes.clone(), self.key.digest()).expect("it can be read");
        assert_eq!(record.bytes(), &bytes);
        let store = self.proxy.launch().opened().await;
        let at = store.load_dyn(&self.key, None.into()).await.unwrap().cursor;
        let appended = store.append_dyn(&self.key, &at, &record).await.unwrap();
        assert!(matches!(appended, Appended::Appended { .. }), "{appended:?}");
        id
    }

    /// A turn of these items, the first `sent` of which are the client's. An item is an author and a message.
    async fn turn(&self, more: Value, items: &[(Value, Value)], sent: usize) -> RecordId {
        let texts: Vec<String> = items.iter().map(|(_, message)| message.to_string()).collect();
        let entries = items.iter().zip(&texts).map(|((about, _), text)| {
            let mut about = about.clone();
            about["len"] = json!(text.len());
            about
        });
        let entries: Vec<Value> = entries.collect();
        let mut members =
            json!({"format": "openai.chat", "state": "complete", "items": entries, "sent": sent});
        for (name, value) in more.as_object().unwrap() {
            members[name] = value.clone();
        }
        self.append(members, &format!("\n{}", texts.join(","))).await
    }

    async fn plain(&self, ask: &str, reply: &str) -> RecordId {
        self.turn(json!({}), &[by_user(ask), by_model(reply)], 1).await
    }

    async fn say(&self, messages: &[Value]) -> Answer {
        Post::chat(body(messages)).session("s").send(&self.proxy).await
    }

    /// What the upstream saw last.
    fn seen(&self) -> Vec<Value> {
        self.upstream.requests().last().expect("it was asked").messages()
    }

    async fn bytes(&self) -> Vec<Bytes> {
        let loaded = self.proxy.launch().opened().await.load_dyn(&self.key, None.into()).await.unwrap();
        loaded.records.iter().map(|record| record.bytes().clone()).collect()
    }
}

fn by_user(text: &str) -> (Value, Value) {
    (json!({"author": "user"}), user(text))
}

fn by_model(text: &str) -> (Value, Value) {
    (json!({"author": "model"}), assistant(text))
}

async fn a_record_of_an_unknown_kind_is_kept_and_is_part_of_no_conversation(kind: Kind) {
    let written = Written::new(kind).await;
    written.plain("u1", "a1").await;
    written.append(json!({"kind": "summary", "of": [1, 2.50], "items": "not a turn's"}), "any\nbytes").await;
    let before = written.bytes().await;
    let answer = written.say(&[user("u2")]).await.ok();
    assert_eq!((answer.outcome(), answer.told("turns")), ("hit", "1"));
    assert_eq!(texts(&written.seen()), ["u1", "a1", "u2"]);
    written.say(&[user("u3")]).await.ok();
    assert_eq!(written.seen().len(), 5, "the turn continues the one before the summary");
    let after = written.bytes().await;
    assert_eq!(
        (&after[..2], after.len()),
        (&before[..], 4),
        "what a reader does not know is kept byte for byte"
    );
}

async fn a_reply_of_two_items_is_replayed_whole(kind: Kind) {
    let written = Written::new(kind).await;
    written.turn(json!({}), &[by_user("u1"), by_model("a1"), by_model("more of a1")], 1).await;
    written.say(&[user("u2")]).await.ok();
    assert_eq!(texts(&written.seen()), ["u1", "a1", "more of a1", "u2"]);
    let resent =
        [user("u1"), assistant("a1"), assistant("more of a1"), user("u2"), assistant("ok"), user("u3")];
    let answer = written.say(&resent[..4]).await.ok();
    assert_eq!(answer.told("client"), "edit", "two items are one reply for a client that resends");
}

async fn an_item_that_answers_two_calls_is_replayed_with_them(kind: Kind) {
    let written = Written::new(kind).await;
    let asks = (json!({"author": "model", "calls": ["a", "b"]}), calls(&["a", "b"]));
    written.turn(json!({}), &[by_user("u1"), asks], 1).await;
    let both = (json!({"author": "tool", "answers": ["a", "b"]}), result("a", "both"));
    written.turn(json!({}), &[both, by_model("done")], 1).await;
    written.say(&[user("u2")]).await.ok();
    assert_eq!(written.seen().len(), 5, "the calls are answered, and stay: {:?}", written.seen());
}

async fn a_turn_in_an_unknown_format_is_never_spliced_and_a_reset_goes_on(kind: Kind) {
    let written = Written::new(kind).await;
    written.plain("u1", "a1").await;
    let item = (json!({"author": "user"}), json!({"type": "message", "content": "u2"}));
    let reply = (json!({"author": "model"}), json!({"type": "message", "content": "a2"}));
    written.turn(json!({"format": "openai.responses"}), &[item, reply], 1).await;
    let before = written.bytes().await;
    let answer = written.say(&[user("u3")]).await;
    assert_eq!((answer.status, answer.code()), (409, "unreadable_session".to_owned()));
    assert!(answer.text().contains("openai.responses"), "{}", answer.text());
    assert_eq!(answer.header("retry-after"), None, "trying again is no use");
    assert_eq!(written.upstream.request_count(), 0, "nothing is asked without its history");
    assert_eq!(written.bytes().await, before);
    Post::chat(body(&[user("again")])).session("s").control("reset").send(&written.proxy).await.ok();
    assert_eq!(texts(&written.seen()), ["again"]);
    let answer = written.say(&[user("and on")]).await.ok();
    assert_eq!(
        (answer.outcome(), answer.told("turns")),
        ("hit", "1"),
        "the branch of the other format is left"
    );
}

async fn a_branch_may_leave_a_turn_at_any_item(kind: Kind) {
    let written = Written::new(kind).await;
    let first = written.turn(json!({}), &[by_user("u1"), by_user("u2"), by_model("a2")], 2).await;
    written.plain("u3", "a3").await;
    let parent = json!({"parent": {"turn": first, "items": 1}});
    written.turn(parent, &[by_user("v2"), by_model("b2")], 1).await;
    written.say(&[user("v3")]).await.ok();
    assert_eq!(texts(&written.seen()), ["u1", "v2", "b2", "v3"]);
}

async fn a_record_of_another_kind_may_have_members_of_any_name(kind: Kind) {
    let written = Written::new(kind).await;
    written.plain("u1", "a1").await;
    written.append(json!({"kind": "note", "coding": "markdown", "key": 5, "state": 7}), "any").await;
    written.say(&[user("u2")]).await.ok();
    assert_eq!(texts(&written.seen()), ["u1", "a1", "u2"]);
}
