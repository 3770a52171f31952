//! Every row of the reconciliation table (`reconcile` in the library's documentation), through the real
//! binary, answered as JSON and as a stream, by a client that serialises what it remembers in its own way.

use serde_json::{Value, json};
use tower_session_memory::history::Parent;

use crate::{
    common::*,
    place::{Kind, Place, pair_on},
};

/// With JSON answers and with streams.
macro_rules! both_ways {
    ($($scenario:ident)+) => {
        on_every_store!(as_json(false): $($scenario)+);
        on_every_store!(as_a_stream(true): $($scenario)+);
    };
}

both_ways! {
    a_new_session_passes_as_it_was_sent
    a_delta_is_put_behind_the_history
    instructions_that_were_sent_once_stand_first_in_every_later_request
    new_instructions_replace_the_old_ones_and_are_never_doubled
    tool_results_alone_continue_the_call
    a_resend_in_another_serialisation_passes_as_it_was_sent
    a_resent_tool_loop_with_respaced_arguments_is_recognised
    a_window_of_the_history_is_completed
    a_window_is_completed_behind_the_remembered_instructions
    an_edit_branches_off_where_it_differs
    a_regeneration_branches_off_before_the_answer
    a_history_that_is_none_of_ours_starts_again
    a_marked_retry_supersedes_the_newest_turn
    the_same_words_twice_are_two_turns_unless_marked
    a_retry_of_the_first_turn_starts_at_the_root
    reset_starts_again_from_the_root
    append_takes_even_assistant_messages_as_new
    a_prefill_passes_untouched_and_is_not_recorded
}

on_every_store! { on():
    an_interrupted_turn_is_superseded_by_the_same_words
    a_conversation_survives_a_restart_of_the_proxy
}

/// A client of one session, an upstream and a proxy between them.
struct Chat {
    upstream: Upstream,
    proxy: Proxy,
    place: Place,
    stream: bool,
}

/// A request as it went out, and what became of it.
struct Sent {
    /// The body up to the first message.
    before: String,
    /// The messages, joined by commas.
    messages: String,
    /// The body after the last message.
    after: String,
    answer: Answer,
    /// The body that the upstream saw.
    seen: String,
    /// What the store calls itself.
    store: &'static str,
}

impl Chat {
    async fn new(on: Kind, stream: bool) -> Self {
        let (upstream, proxy, place) = pair_on(on).await;
        Self { upstream, proxy, place, stream }
    }

    /// The upstream's next answer is this message.
    fn script(&self, message: &Value) {
        self.upstream.push(match &message["tool_calls"][0] {
            _ if !self.stream => Reply::message(message),
            Value::Null => Reply::stream(message["content"].as_str().unwrap()),
            call => Reply::stream_tool_call(
                call["id"].as_str().unwrap(),
                call["function"]["name"].as_str().unwrap(),
                call["function"]["arguments"].as_str().unwrap(),
            ),
        });
    }

    /// Says `text` and is answered `reply`, sending only the new message.
    async fn turn(&self, text: &str, reply: &str) -> Sent {
        self.script(&assistant(reply));
        self.send(&[user(text)]).await
    }

    /// Two plain turns: the history u1 a1 u2 a2.
    async fn two_turns(&self) {
        self.turn("u1", "a1").await;
        self.turn("u2", "a2").await;
    }

    async fn send(&self, messages: &[Value]) -> Sent {
        self.send_with(messages, |post| post).await
    }

    /// Sends exactly these messages, with members around them that are spaced oddly.
    async fn send_with(&self, messages: &[Value], change: impl FnOnce(Post) -> Post) -> Sent {
        let before = format!("{{ \"model\" :\"m\", \"stream\":{} ,\"messages\": [ ", self.stream);
        let messages = messages.iter().map(Value::to_string).collect::<Vec<_>>().join(",");
        let after = " ] , \"temperature\":0.10,\"tools\":[]}".to_owned();
        let post = Post::chat(format!("{before}{messages}{after}")).session("s");
        let answer = change(post).send(&self.proxy).await.ok();
        let seen = self.upstream.requests().pop().expect("the upstream was asked").body;
        let seen = String::from_utf8(seen.to_vec()).unwrap();
        Sent { before, messages, after, answer, seen, store: self.place.kind.name() }
    }

    async fn stored(&self) -> Vec<Stored> {
        self.proxy.stored("s").await
    }

    /// The raw messages of these turns, joined by commas.
    async fn raw(&self, turns: std::ops::Range<usize>) -> String {
        self.stored().await[turns].iter().map(|turn| turn.raw.as_str()).collect::<Vec<_>>().join(",")
    }
}

impl Sent {
    /// What was sent, with `history` before its messages.
    fn with_history(&self, history: &str) -> String {
        format!("{}{history},{}{}", self.before, self.messages, self.after)
    }

    fn as_sent(&self) -> String {
        format!("{}{}{}", self.before, self.messages, self.after)
    }

    /// `new` when the request continues no turn, else `hit`; and what the client was taken for.
    #[track_caller]
    fn is(&self, outcome: &str, client: &str) {
        assert_eq!((self.answer.outcome(), self.answer.told("client")), (outcome, client));
        let seen: Value = serde_json::from_str(&self.seen).unwrap();
        let sent = seen["messages"].as_array().unwrap().iter().filter(|m| m["role"] != "system").count();
        assert_eq!(self.answer.told("sent"), sent.to_string(), "`sent` counts what the upstream saw");
        assert_eq!(self.answer.told("store"), self.store);
    }
}

/// A user message as a client writes it that keeps text as parts.
fn user_in_parts(text: &str) -> Value {
    json!({"role": "user", "content": [{"type": "text", "text": text}], "name": null})
}

/// An assistant message as the official clients echo it, nulls and all.
fn echoed(text: &str) -> Value {
    json!({"role": "assistant", "content": text, "refusal": null, "annotations": [], "audio": null,
           "function_call": null, "tool_calls": null})
}

fn call(arguments: &str) -> Value {
    json!({"role": "assistant", "content": null, "refusal": null, "tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": arguments}}]})
}

async fn a_new_session_passes_as_it_was_sent(on: Kind, stream: bool) {
    let chat = Chat::new(on, stream).await;
    chat.script(&assistant("a1"));
    let sent = chat.send(&[system("Terse."), user("u0"), assistant("a0"), user("u1")]).await;
    assert_eq!(sent.seen, sent.as_sent());
    sent.is("new", "new");
    let turns = chat.stored().await;
    assert_eq!(turns[0].texts(), ["u0", "a0", "u1", "a1"]);
    assert_eq!(turns[0].instructions, [system("Terse.")]);
}

async fn a_delta_is_put_behind_the_history(on: Kind, stream: bool) {
    let chat = Chat::new(on, stream).await;
    chat.two_turns().await;
    let sent = chat.turn("u3", "a3").await;
    sent.is("hit", "delta");
    assert_eq!(sent.seen, sent.with_history(&chat.raw(0..2).await));
    assert_eq!(chat.stored().await[2].texts(), ["u3", "a3"]);
    assert_eq!(chat.stored().await[2].parent, Parent::Previous);
}

async fn instructions_that_were_sent_once_stand_first_in_every_later_request(on: Kind, stream: bool) {
    let chat = Chat::new(on, stream).await;
    chat.script(&assistant("a1"));
    chat.send(&[system("Terse."), user("u1")]).await;
    let sent = chat.turn("u2", "a2").await;
    let history = format!("{},{}", system("Terse."), chat.raw(0..1).await);
    assert_eq!(sent.seen, sent.with_history(&history));
    assert!(chat.stored().await[1].instructions.is_empty(), "they have not changed");
}

async fn new_instructions_replace_the_old_ones_and_are_never_doubled(on: Kind, stream: bool) {
    let chat = Chat::new(on, stream).await;
    chat.script(&assistant("a1"));
    chat.send(&[system("Terse."), user("u1")]).await;
    chat.script(&assistant("a2"));
    let sent = chat.send(&[system("Wordy."), user("u2")]).await;
    let seen: Value = serde_json::from_str(&sent.seen).unwrap();
    assert_eq!(texts(seen["messages"].as_array().unwrap()), ["Wordy.", "u1", "a1", "u2"]);
    assert_eq!(chat.stored().await[1].instructions, [system("Wordy.")]);
    let sent = chat.turn("u3", "a3").await;
    let seen: Value = serde_json::from_str(&sent.seen).unwrap();
    assert_eq!(texts(seen["messages"].as_array().unwrap()), ["Wordy.", "u1", "a1", "u2", "a2", "u3"]);
}

async fn tool_results_alone_continue_the_call(on: Kind, stream: bool) {
    let chat = Chat::new(on, stream).await;
    chat.script(&call("{\"q\":1}"));
    chat.send(&[user("u1")]).await;
    chat.script(&assistant("found"));
    let sent = chat.send(&[result("call_1", "42")]).await;
    sent.is("hit", "delta");
    assert_eq!(sent.seen, sent.with_history(&chat.raw(0..1).await));
}

async fn a_resend_in_another_serialisation_passes_as_it_was_sent(on: Kind, stream: bool) {
    let chat = Chat::new(on, stream).await;
    chat.two_turns().await;
    chat.script(&assistant("a3"));
    let messages = [user_in_parts("u1"), echoed("a1"), user_in_parts("u2"), echoed("a2"), user("u3")];
    let sent = chat.send(&messages).await;
    sent.is("hit", "resend");
    assert_eq!(sent.seen, sent.as_sent());
    assert_eq!(chat.stored().await[2].texts(), ["u3", "a3"], "only what is new is stored");
}

async fn a_resent_tool_loop_with_respaced_arguments_is_recognised(on: Kind, stream: bool) {
    let chat = Chat::new(on, stream).await;
    chat.script(&call("{\"q\":1,\"r\":[true,null]}"));
    chat.send(&[user("u1")]).await;
    chat.script(&assistant("found"));
    let respaced = call("{ \"q\": 1,\n \"r\": [ true, null ] }");
    let sent = chat.send(&[user("u1"), respaced, result("call_1", "42")]).await;
    sent.is("hit", "resend");
    assert_eq!(sent.seen, sent.as_sent());
    assert_eq!(chat.stored().await[1].texts(), ["42", "found"]);
}

async fn a_window_of_the_history_is_completed(on: Kind, stream: bool) {
    let chat = Chat::new(on, stream).await;
    chat.two_turns().await;
    chat.script(&assistant("a3"));
    let sent = chat.send(&[user_in_parts("u2"), echoed("a2"), user("u3")]).await;
    sent.is("hit", "window");
    assert_eq!(sent.seen, sent.with_history(&chat.raw(0..1).await));
    assert_eq!(chat.stored().await[2].texts(), ["u3", "a3"]);
}

async fn a_window_is_completed_behind_the_remembered_instructions(on: Kind, stream: bool) {
    let chat = Chat::new(on, stream).await;
    chat.script(&assistant("a1"));
    chat.send(&[system("Terse."), user("u1")]).await;
    chat.turn("u2", "a2").await;
    chat.script(&assistant("a3"));
    let sent = chat.send(&[user("u2"), assistant("a2"), user("u3")]).await;
    sent.is("hit", "window");
    let history = format!("{},{}", system("Terse."), chat.raw(0..1).await);
    assert_eq!(sent.seen, sent.with_history(&history));
}

async fn an_edit_branches_off_where_it_differs(on: Kind, stream: bool) {
    let chat = Chat::new(on, stream).await;
    chat.two_turns().await;
    chat.script(&assistant("other"));
    let sent = chat.send(&[user_in_parts("u1"), echoed("a1"), user("u2, edited")]).await;
    sent.is("hit", "edit");
    assert_eq!(sent.seen, sent.as_sent());
    let turns = chat.stored().await;
    assert_eq!(turns[2].texts(), ["u2, edited", "other"]);
    assert_eq!(turns[2].parent, turns[0].end());
    let next = chat.turn("u3", "a3").await;
    let path = format!("{},{}", turns[0].raw, turns[2].raw);
    assert_eq!(next.seen, next.with_history(&path), "the abandoned branch is off the path");
}

async fn a_regeneration_branches_off_before_the_answer(on: Kind, stream: bool) {
    let chat = Chat::new(on, stream).await;
    chat.two_turns().await;
    chat.script(&assistant("again"));
    let sent = chat.send(&[user("u1"), echoed("a1"), user_in_parts("u2")]).await;
    sent.is("hit", "edit");
    assert_eq!(sent.seen, sent.as_sent());
    let turns = chat.stored().await;
    assert_eq!(turns[2].texts(), ["", "again"], "the client's parts are kept as parts");
    assert_eq!(turns[2].parent, turns[0].end());
}

async fn a_history_that_is_none_of_ours_starts_again(on: Kind, stream: bool) {
    let chat = Chat::new(on, stream).await;
    chat.two_turns().await;
    chat.script(&assistant("y2"));
    let sent = chat.send(&[user("x1"), echoed("y1"), user("x2")]).await;
    sent.is("new", "unrelated");
    assert_eq!(sent.seen, sent.as_sent());
    let turns = chat.stored().await;
    assert_eq!(turns[2].texts(), ["x1", "y1", "x2", "y2"]);
    assert_eq!(turns[2].parent, Parent::Root);
    let next = chat.turn("x3", "y3").await;
    assert_eq!(next.seen, next.with_history(&turns[2].raw));
}

async fn a_marked_retry_supersedes_the_newest_turn(on: Kind, stream: bool) {
    let chat = Chat::new(on, stream).await;
    chat.two_turns().await;
    chat.script(&assistant("second try"));
    let retry = |post: Post| post.header("x-stainless-retry-count", "1");
    let sent = chat.send_with(&[user_in_parts("u2")], retry).await;
    sent.is("hit", "retry");
    let turns = chat.stored().await;
    assert_eq!(sent.seen, sent.with_history(&turns[0].raw));
    assert_eq!(turns[2].parent, turns[0].end());
}

async fn the_same_words_twice_are_two_turns_unless_marked(on: Kind, stream: bool) {
    let chat = Chat::new(on, stream).await;
    chat.two_turns().await;
    let sent = chat.turn("u2", "a2 again").await;
    sent.is("hit", "delta");
    assert_eq!(sent.seen, sent.with_history(&chat.raw(0..2).await));
}

async fn a_retry_of_the_first_turn_starts_at_the_root(on: Kind, stream: bool) {
    let chat = Chat::new(on, stream).await;
    chat.turn("u1", "a1").await;
    chat.script(&assistant("second try"));
    let sent = chat.send_with(&[user("u1")], |post| post.header("x-stainless-retry-count", "2")).await;
    sent.is("new", "retry");
    assert_eq!(sent.seen, sent.as_sent());
    assert_eq!(chat.stored().await[1].parent, Parent::Root);
}

async fn reset_starts_again_from_the_root(on: Kind, stream: bool) {
    let chat = Chat::new(on, stream).await;
    chat.two_turns().await;
    chat.script(&assistant("fresh"));
    let sent = chat.send_with(&[user("n1")], |post| post.control("reset")).await;
    assert_eq!(sent.seen, sent.as_sent());
    let turns = chat.stored().await;
    assert_eq!(turns.len(), 3, "the log keeps what was before");
    assert_eq!(turns[2].parent, Parent::Root);
    let next = chat.turn("n2", "a").await;
    assert_eq!(next.seen, next.with_history(&turns[2].raw));
}

async fn append_takes_even_assistant_messages_as_new(on: Kind, stream: bool) {
    let chat = Chat::new(on, stream).await;
    chat.turn("u1", "a1").await;
    chat.script(&assistant("a3"));
    let messages = [user("u1"), assistant("a1"), user("u3")];
    let sent = chat.send_with(&messages, |post| post.control("append")).await;
    let turns = chat.stored().await;
    assert_eq!(sent.seen, sent.with_history(&turns[0].raw));
    assert_eq!(turns[1].texts(), ["u1", "a1", "u3", "a3"]);
}

async fn a_prefill_passes_untouched_and_is_not_recorded(on: Kind, stream: bool) {
    let chat = Chat::new(on, stream).await;
    chat.turn("u1", "a1").await;
    chat.script(&assistant("…and so on"));
    let sent = chat.send(&[user("u2"), assistant("It begins")]).await;
    assert_eq!(sent.seen, sent.as_sent());
    assert_eq!((sent.answer.outcome(), sent.answer.told("reason")), ("bypass", "prefill"));
    assert_eq!(chat.stored().await.len(), 1);
}

async fn an_interrupted_turn_is_superseded_by_the_same_words(on: Kind) {
    let (upstream, proxy, _place) = pair_on(on).await;
    let half = Chunk::delta(&json!({"role": "assistant", "content": "half an ans"}));
    upstream.push(Reply::chunks([half]).held_open());
    let post = Post::chat(stream_body(&[user("u1")])).session("s");
    let mut exchange = post.start(&proxy).await;
    exchange.read_until("half an ans").await;
    drop(exchange);
    stored_turns(&proxy, "s", 1).await;
    let answer = post.send(&proxy).await.ok();
    assert_eq!(answer.told("client"), "retry");
    assert_eq!(texts(&upstream.requests().pop().unwrap().messages()), ["u1"]);
    assert_eq!(proxy.stored("s").await[1].parent, Parent::Root);
}

async fn a_conversation_survives_a_restart_of_the_proxy(on: Kind) {
    let (upstream, proxy, _place) = pair_on(on).await;
    Post::chat(body(&[system("Terse."), user("u1")])).session("s").send(&proxy).await.ok();
    let proxy = proxy.restart().await;
    let answer = Post::chat(body(&[user("u2")])).session("s").send(&proxy).await.ok();
    assert_eq!(answer.said(), "You said 2 things; the last was: u2");
    let seen = texts(&upstream.requests().pop().unwrap().messages());
    assert_eq!(seen, ["Terse.", "u1", "You said 1 thing: u1", "u2"]);
}
