//! What clients, upstreams and networks do to a conversation: the sequence cases H01 to H30, through the real
//! binary, a scripted upstream and a raw client.

use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use tower_session_memory::testing::upstream::refuse_unanswered_calls;

use crate::{
    common::*,
    place::{Kind, Place, ReadOnly, pair_on, pair_with},
};

on_every_store! { on():
    h01_two_failures_and_a_success_are_one_turn
    h02_an_error_of_the_upstream_reaches_the_client_untouched_and_is_not_stored
    h03_a_client_that_closes_at_done_has_its_turn_stored_while_the_upstream_stays_open
    h04_the_request_right_after_done_contains_the_turn
    h05_a_client_that_leaves_after_two_deltas_leaves_an_interrupted_turn
    h05_a_client_that_leaves_before_the_first_word_leaves_nothing
    h06_a_retry_of_an_answer_that_was_lost_supersedes_it
    h07_two_posts_at_once_are_two_whole_groups
    h08_a_large_body_with_expect_is_asked_for_spliced_and_sent_on_without_expect
    h09_a_compressed_request_is_decoded_spliced_and_sent_as_identity
    h10_a_chunked_request_is_spliced_and_gets_a_length
    h11_a_compressed_reply_goes_through_unchanged_and_is_recorded
    h12_a_stream_that_is_answered_with_json_is_read_as_json
    h13_a_cookie_of_the_upstream_passes_and_names_no_session
    h14_a_request_without_a_session_passes_byte_for_byte
    h15_one_session_id_under_two_api_keys_is_two_conversations
    h16_an_id_that_is_no_id_is_refused
    h17_two_different_ids_are_refused
    h18_an_azure_path_is_handled_and_keeps_its_query
    h19_other_paths_pass_untouched
    h20_a_conversation_that_the_upstream_keeps_is_left_alone
    h21_a_tool_loop_needs_only_the_results
    h22_half_of_the_results_is_the_upstreams_to_refuse
    h23_a_call_that_is_never_answered_does_not_brick_the_session
    h24_a_client_that_resends_everything_is_not_doubled
    h25_a_title_job_with_off_neither_sees_nor_leaves_anything
    h25_a_tag_job_with_read_sees_everything_and_leaves_nothing
    h26_a_window_never_splits_a_tool_exchange
    h27_a_store_that_cannot_write_does_not_hold_the_reply_back
    h28_keepalives_that_end_in_an_error_frame_are_no_reply
    h29_of_two_choices_the_first_is_remembered
    h30_a_signed_request_is_left_alone
}

// What need not look into the store.
on_store! { in_memory = Memory, ():
    h04_the_request_right_after_done_contains_the_turn
    h08_a_large_body_with_expect_is_asked_for_spliced_and_sent_on_without_expect
    h09_a_compressed_request_is_decoded_spliced_and_sent_as_identity
    h10_a_chunked_request_is_spliced_and_gets_a_length
    h15_one_session_id_under_two_api_keys_is_two_conversations
    h16_an_id_that_is_no_id_is_refused
    h17_two_different_ids_are_refused
    h18_an_azure_path_is_handled_and_keeps_its_query
}

/// Says something in a session and gives the answer.
async fn say(proxy: &Proxy, session: &str, text: &str) -> Answer {
    Post::chat(body(&[user(text)])).session(session).send(proxy).await.ok()
}

/// The texts of the messages of the upstream's newest request.
fn last_seen(upstream: &Upstream) -> Vec<String> {
    texts(&upstream.requests().last().expect("the upstream was asked").messages())
}

async fn h01_two_failures_and_a_success_are_one_turn(on: Kind) {
    let (upstream, proxy, _place) = pair_on(on).await;
    upstream.push(Reply::error(StatusCode::INTERNAL_SERVER_ERROR, "no"));
    upstream.push(Reply::error(StatusCode::INTERNAL_SERVER_ERROR, "no"));
    let post = Post::chat(body(&[user("hi")])).session("s");
    for (attempt, status) in [500, 500, 200].into_iter().enumerate() {
        let retry = post.clone().header("x-stainless-retry-count", attempt.to_string());
        assert_eq!(retry.send(&proxy).await.status, status);
    }
    let turns = proxy.stored("s").await;
    assert_eq!(turns.len(), 1, "{turns:?}");
    assert_eq!(turns[0].texts(), ["hi", "You said 1 thing: hi"]);
}

async fn h02_an_error_of_the_upstream_reaches_the_client_untouched_and_is_not_stored(on: Kind) {
    let (upstream, proxy, _place) = pair_on(on).await;
    let busy = Reply::error(StatusCode::TOO_MANY_REQUESTS, "slow down")
        .with_header(header::RETRY_AFTER, HeaderValue::from_static("7"))
        .with_header("retry-after-ms".parse().unwrap(), HeaderValue::from_static("6500"));
    let wrong = Reply::error(StatusCode::BAD_REQUEST, "not like this");
    for reply in [busy, wrong] {
        upstream.push(reply.clone());
        let answer = Post::chat(body(&[user("hi")])).session("s").send(&proxy).await;
        assert_eq!(answer.status, reply.status.as_u16());
        assert_eq!(answer.body, reply.body());
        for (name, value) in &reply.headers {
            assert_eq!(answer.header(name.as_str()), value.to_str().ok(), "{name}");
        }
    }
    assert!(proxy.stored("s").await.is_empty());
}

async fn h03_a_client_that_closes_at_done_has_its_turn_stored_while_the_upstream_stays_open(on: Kind) {
    let (upstream, proxy, _place) = pair_on(on).await;
    upstream.push(Reply::stream("Hello there").held_open());
    let mut exchange = Post::chat(stream_body(&[user("hi")])).session("s").start(&proxy).await;
    exchange.read_until("data: [DONE]").await;
    let turns = proxy.stored("s").await;
    assert_eq!(turns.len(), 1, "the turn is stored before its end is seen");
    assert_eq!(turns[0].texts(), ["hi", "Hello there"]);
    assert!(turns[0].is_complete());
    drop(exchange);
    within("the upstream's reply to be dropped", upstream.wait_until(|u| u.abandoned() == 1)).await;
    assert_eq!(proxy.stored("s").await.len(), 1, "leaving after the end stores nothing more");
}

async fn h04_the_request_right_after_done_contains_the_turn(on: Kind) {
    let (upstream, proxy, _place) = pair_on(on).await;
    upstream.push(Reply::stream("Hello there").held_open());
    let mut exchange = Post::chat(stream_body(&[user("one")])).session("s").start(&proxy).await;
    exchange.read_until("data: [DONE]").await;
    let answer = say(&proxy, "s", "two").await;
    assert_eq!(last_seen(&upstream), ["one", "Hello there", "two"]);
    assert_eq!(answer.outcome(), "hit");
}

async fn h05_a_client_that_leaves_after_two_deltas_leaves_an_interrupted_turn(on: Kind) {
    let (upstream, proxy, _place) = pair_on(on).await;
    let delta = |text| Chunk::delta(&json!({"content": text}));
    upstream.push(Reply::chunks([delta("Once upon"), delta(" a time")]).held_open());
    let mut exchange = Post::chat(stream_body(&[user("a story")])).session("s").start(&proxy).await;
    exchange.read_until(" a time").await;
    drop(exchange);
    let turns = stored_turns(&proxy, "s", 1).await;
    assert_eq!(turns[0].texts(), ["a story", "Once upon a time"]);
    assert!(!turns[0].is_complete(), "what was cut is marked");
    within("the upstream to be cancelled", upstream.wait_until(|u| u.abandoned() == 1)).await;
    say(&proxy, "s", "go on").await;
    assert_eq!(last_seen(&upstream), ["a story", "Once upon a time", "go on"]);
}

async fn h05_a_client_that_leaves_before_the_first_word_leaves_nothing(on: Kind) {
    let (upstream, proxy, _place) = pair_on(on).await;
    upstream.push(Reply::chunks([Chunk::delta(&json!({"role": "assistant", "content": ""}))]).held_open());
    let mut exchange = Post::chat(stream_body(&[user("a story")])).session("s").start(&proxy).await;
    exchange.read_until("assistant").await;
    drop(exchange);
    within("the upstream to be cancelled", upstream.wait_until(|u| u.abandoned() == 1)).await;
    say(&proxy, "s", "hello").await;
    assert_eq!(last_seen(&upstream), ["hello"]);
    assert_eq!(proxy.stored("s").await.len(), 1);
}

async fn h06_a_retry_of_an_answer_that_was_lost_supersedes_it(on: Kind) {
    let (upstream, proxy, _place) = pair_on(on).await;
    say(&proxy, "s", "first").await;
    let post = Post::chat(body(&[user("second")])).session("s");
    let unread = {
        use tokio::io::AsyncWriteExt;
        let mut socket = tokio::net::TcpStream::connect(proxy.addr()).await.unwrap();
        socket.write_all(&post.bytes()).await.unwrap();
        socket
    };
    stored_turns(&proxy, "s", 2).await;
    drop(unread);
    let answer = post.header("x-stainless-retry-count", "1").send(&proxy).await.ok();
    assert_eq!(answer.told("client"), "retry");
    assert_eq!(last_seen(&upstream), ["first", "You said 1 thing: first", "second"]);
    let turns = stored_turns(&proxy, "s", 3).await;
    assert_eq!(turns[2].parent, turns[0].end(), "the lost try is off the path, and kept in the log");
    say(&proxy, "s", "third").await;
    let seconds = last_seen(&upstream).iter().filter(|text| *text == "second").count();
    assert_eq!(seconds, 1, "the message is in the history once");
}

async fn h07_two_posts_at_once_are_two_whole_groups(on: Kind) {
    let (upstream, proxy, _place) = pair_on(on).await;
    let gate = Gate::new();
    for name in ["one", "two"] {
        upstream.push(Reply::text(name).after(Step::WaitFor(gate.clone())));
    }
    let post = |text: &str| Post::chat(body(&[user(text)])).session("s");
    let (left, right) = (post("a"), post("b"));
    let both = async {
        upstream.wait_until(|u| u.request_count() == 2).await;
        gate.open();
    };
    let (left, right, ()) =
        within("both answers", async { tokio::join!(left.send(&proxy), right.send(&proxy), both) }).await;
    let answered = [["a".to_owned(), left.ok().said()], ["b".to_owned(), right.ok().said()]];
    let mut stored: Vec<_> = proxy.stored("s").await.iter().map(Stored::texts).collect();
    stored.sort();
    assert_eq!(stored, answered);
}

async fn h08_a_large_body_with_expect_is_asked_for_spliced_and_sent_on_without_expect(on: Kind) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (upstream, proxy, _place) = pair_on(on).await;
    say(&proxy, "s", "before").await;
    let long = "x".repeat(2 << 20);
    let post = Post::chat(body(&[user(&long)])).session("s").header("expect", "100-continue");
    let mut socket = tokio::net::TcpStream::connect(proxy.addr()).await.unwrap();
    socket.write_all(&post.head()).await.unwrap();
    let mut interim = [0; 25];
    within("100 Continue", socket.read_exact(&mut interim)).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    socket.write_all(&post.framed_body()).await.unwrap();
    let answer = client::answer_on(socket).await.finish().await.unwrap().ok();
    assert_eq!(answer.told("client"), "delta");
    let seen = upstream.requests().pop().unwrap();
    assert_eq!(seen.header("expect"), None);
    let messages = seen.messages();
    assert_eq!(texts(&messages[..2]), ["before", "You said 1 thing: before"]);
    assert!(messages[2..] == [user(&long)], "the long message arrived");
}

async fn h09_a_compressed_request_is_decoded_spliced_and_sent_as_identity(on: Kind) {
    let (upstream, proxy, _place) = pair_on(on).await;
    say(&proxy, "s", "before").await;
    let plain = body(&[user("packed")]);
    let packed =
        [("gzip", gzip(plain.as_bytes())), ("zstd", zstd::stream::encode_all(plain.as_bytes(), 0).unwrap())];
    for (index, (encoding, bytes)) in packed.into_iter().enumerate() {
        let answer =
            Post::chat(bytes).session("s").header("content-encoding", encoding).send(&proxy).await.ok();
        assert_eq!(answer.told("client"), "delta", "{encoding}");
        let seen = upstream.requests().pop().unwrap();
        assert_eq!(seen.header("content-encoding"), None, "{encoding}");
        assert_eq!(seen.header("content-length"), Some(seen.body.len().to_string().as_str()), "{encoding}");
        let messages = seen.messages();
        assert_eq!(messages.len(), 3 + 2 * index, "{encoding}");
        assert_eq!(messages.last(), Some(&user("packed")), "{encoding}");
    }
}

async fn h10_a_chunked_request_is_spliced_and_gets_a_length(on: Kind) {
    let (upstream, proxy, _place) = pair_on(on).await;
    say(&proxy, "s", "before").await;
    let long = "y".repeat(5_000);
    Post::chat(body(&[user(&long)])).session("s").chunked().send(&proxy).await.ok();
    let seen = upstream.requests().pop().unwrap();
    let messages = seen.messages();
    assert_eq!(texts(&messages[..2]), ["before", "You said 1 thing: before"]);
    assert!(messages[2..] == [user(&long)], "the long message arrived");
    assert_eq!(seen.header("transfer-encoding"), None);
    assert_eq!(seen.header("content-length"), Some(seen.body.len().to_string().as_str()));
}

async fn h11_a_compressed_reply_goes_through_unchanged_and_is_recorded(on: Kind) {
    let (upstream, proxy, _place) = pair_on(on).await;
    let packed = gzip(&Reply::text("Hello").body());
    let gzipped = Reply::new(StatusCode::OK)
        .with_header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .with_header(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"))
        .with_header(header::CONTENT_LENGTH, packed.len().into())
        .then(Step::Send(packed.clone().into()));
    upstream.push(gzipped);
    let answer = Post::chat(body(&[user("hi")])).session("s").send(&proxy).await.ok();
    assert_eq!(upstream.requests()[0].header("accept-encoding"), Some("identity"));
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    assert_eq!(answer.body, packed);
    assert_eq!(proxy.stored("s").await[0].texts(), ["hi", "Hello"]);
}

async fn h12_a_stream_that_is_answered_with_json_is_read_as_json(on: Kind) {
    let (upstream, proxy, _place) = pair_on(on).await;
    let post = Post::chat(stream_body(&[user("hi")])).session("s");
    upstream.push(Reply::error(StatusCode::OK, "an error with a good status"));
    post.send(&proxy).await.ok();
    assert!(proxy.stored("s").await.is_empty(), "an error body is no reply");
    upstream.push(Reply::text("Hello"));
    let answer = post.send(&proxy).await.ok();
    assert_eq!(answer.body, Reply::text("Hello").body());
    assert_eq!(proxy.stored("s").await[0].texts(), ["hi", "Hello"]);
}

async fn h13_a_cookie_of_the_upstream_passes_and_names_no_session(on: Kind) {
    let (upstream, proxy, _place) = pair_on(on).await;
    let cookie = HeaderValue::from_static("session=abc; Path=/");
    upstream.push(Reply::text("Hello").with_header(header::SET_COOKIE, cookie));
    let answer = Post::chat(body(&[user("hi")])).session("s").send(&proxy).await.ok();
    assert_eq!(answer.header("set-cookie"), Some("session=abc; Path=/"));
    Post::chat(body(&[user("two")])).header("cookie", "session=abc").send(&proxy).await.ok();
    let seen = upstream.requests().pop().unwrap();
    assert_eq!(seen.header("cookie"), Some("session=abc"));
    assert_eq!(texts(&seen.messages()), ["two"]);
    assert_eq!(proxy.sessions().await, ["s"]);
}

async fn h14_a_request_without_a_session_passes_byte_for_byte(on: Kind) {
    let (upstream, proxy, _place) = pair_on(on).await;
    let odd = "{ \"messages\" : [ {\"role\":\"user\",\"content\":\"a\\u0062\"} ], \"x\":1e2, \"x\":0.10 }";
    let reply =
        Reply::text("as it is").with_header("x-request-id".parse().unwrap(), HeaderValue::from_static("r1"));
    upstream.push(reply.clone());
    let answer = Post::chat(odd).header("accept-encoding", "gzip, br").send(&proxy).await.ok();
    let seen = upstream.requests().pop().unwrap();
    assert_eq!(seen.body, odd);
    assert_eq!(seen.header("accept-encoding"), Some("gzip, br"));
    assert_eq!(answer.body, reply.body());
    assert_eq!(answer.header("x-request-id"), Some("r1"));
    assert_eq!(answer.header("x-session-id"), None);
    assert_eq!(answer.header("cache-control"), None);
    assert!(proxy.sessions().await.is_empty());
}

async fn h15_one_session_id_under_two_api_keys_is_two_conversations(on: Kind) {
    let (upstream, proxy, _place) = pair_on(on).await;
    for key in ["Bearer alice", "Bearer mallory"] {
        let post = Post::chat(body(&[user(key)])).session("s").header("authorization", key);
        assert_eq!(post.send(&proxy).await.ok().outcome(), "new", "{key}");
        assert_eq!(last_seen(&upstream), [key]);
    }
    let post = Post::chat(body(&[user("again")])).session("s").header("authorization", "Bearer alice");
    post.send(&proxy).await.ok();
    assert_eq!(last_seen(&upstream), ["Bearer alice", "You said 1 thing: Bearer alice", "again"]);
}

async fn h16_an_id_that_is_no_id_is_refused(on: Kind) {
    let (upstream, proxy, _place) = pair_on(on).await;
    for id in ["", "two words", &"x".repeat(300), "tab\there"] {
        let answer = Post::chat(body(&[user("hi")])).session(id).send(&proxy).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_session_id"), "{id:?}");
    }
    assert_eq!(upstream.request_count(), 0);
}

async fn h17_two_different_ids_are_refused(on: Kind) {
    let (upstream, proxy, _place) = pair_on(on).await;
    let answer = Post::chat(body(&[user("hi")])).session("a").session("b").send(&proxy).await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_session_id"));
    assert_eq!(upstream.request_count(), 0);
}

async fn h18_an_azure_path_is_handled_and_keeps_its_query(on: Kind) {
    let (upstream, proxy, _place) = pair_on(on).await;
    let path = "/openai/deployments/gpt/chat/completions?api-version=2024-06-01";
    for text in ["one", "two"] {
        Post::chat(body(&[user(text)])).path(path).session("s").send(&proxy).await.ok();
    }
    let seen = upstream.requests().pop().unwrap();
    assert_eq!(seen.uri.to_string(), path);
    assert_eq!(texts(&seen.messages()), ["one", "You said 1 thing: one", "two"]);
}

async fn h19_other_paths_pass_untouched(on: Kind) {
    let (upstream, proxy, _place) = pair_on(on).await;
    say(&proxy, "s", "before").await;
    for path in ["/v1/embeddings", "/v1/responses/input_tokens", "/v1/messages/count_tokens"] {
        let odd = "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"input\":\"x\"}";
        let post = Post::to(path, odd).header("content-type", "application/json").session("s");
        let answer = post.send(&proxy).await.ok();
        let seen = upstream.requests().pop().unwrap();
        assert_eq!((seen.uri.path(), seen.body.as_ref()), (path, odd.as_bytes()));
        assert_eq!(answer.json(), json!({"object": "list", "data": []}));
    }
    Post::get("/v1/models").session("s").send(&proxy).await.ok();
    assert_eq!(upstream.requests().pop().unwrap().uri.path(), "/v1/models");
    assert_eq!(proxy.stored("s").await.len(), 1);
}

async fn h20_a_conversation_that_the_upstream_keeps_is_left_alone(on: Kind) {
    let (upstream, proxy, _place) = pair_on(on).await;
    say(&proxy, "s", "before").await;
    for member in ["previous_response_id", "conversation"] {
        let body = json!({"model": "m", member: "r_1", "messages": [user("hi")]}).to_string();
        let answer = Post::chat(body.clone()).session("s").send(&proxy).await.ok();
        assert_eq!(upstream.requests().pop().unwrap().body, body);
        assert_eq!((answer.outcome(), answer.told("reason")), ("bypass", "upstream_state"));
    }
    assert_eq!(proxy.stored("s").await.len(), 1);
}

async fn h21_a_tool_loop_needs_only_the_results(on: Kind) {
    let (upstream, proxy, _place) = pair_on(on).await;
    upstream.set_model(refuse_unanswered_calls);
    upstream.push(Reply::message(&calls(&["a", "b"])));
    say(&proxy, "s", "look it up").await;
    let results = [result("a", "1"), result("b", "2")];
    Post::chat(body(&results)).session("s").send(&proxy).await.ok();
    let seen = upstream.requests().pop().unwrap().messages();
    assert_eq!(texts(&seen), ["look it up", "", "1", "2"]);
    assert_eq!(seen[1]["tool_calls"][1]["id"], "b");
    let turns = proxy.stored("s").await;
    assert_eq!(turns[1].texts(), ["1", "2", "You said 1 thing: look it up"]);
    assert_eq!(turns[1].sent, 2);
}

async fn h22_half_of_the_results_is_the_upstreams_to_refuse(on: Kind) {
    let (upstream, proxy, _place) = pair_on(on).await;
    upstream.set_model(refuse_unanswered_calls);
    upstream.push(Reply::message(&calls(&["a", "b"])));
    say(&proxy, "s", "look it up").await;
    let answer = Post::chat(body(&[result("a", "1")])).session("s").send(&proxy).await;
    assert_eq!(answer.status, 400);
    assert_eq!(last_seen(&upstream), ["look it up", "", "1"]);
    assert_eq!(proxy.stored("s").await.len(), 1, "the refused turn is not stored");
    Post::chat(body(&[result("a", "1"), result("b", "2")])).session("s").send(&proxy).await.ok();
    assert_eq!(proxy.stored("s").await.len(), 2, "and the whole of it still can be");
}

async fn h23_a_call_that_is_never_answered_does_not_brick_the_session(on: Kind) {
    let (upstream, proxy, _place) = pair_on(on).await;
    upstream.set_model(refuse_unanswered_calls);
    say(&proxy, "s", "first").await;
    upstream.push(Reply::message(&calls(&["a"])));
    say(&proxy, "s", "look it up").await;
    say(&proxy, "s", "never mind").await;
    assert_eq!(last_seen(&upstream), ["first", "You said 1 thing: first", "never mind"]);
    say(&proxy, "s", "thanks").await;
    assert!(last_seen(&upstream).contains(&"never mind".to_owned()));
    assert_eq!(proxy.stored("s").await.len(), 4, "the log keeps the call");
}

async fn h24_a_client_that_resends_everything_is_not_doubled(on: Kind) {
    let (upstream, proxy, _place) = pair_on(on).await;
    let first = say(&proxy, "s", "one").await;
    let everything = body(&[user("one"), assistant(&first.said()), user("two")]);
    let answer = Post::chat(everything.clone()).session("s").send(&proxy).await.ok();
    assert_eq!(answer.told("client"), "resend");
    assert_eq!(upstream.requests().pop().unwrap().body, everything);
    let turns = proxy.stored("s").await;
    assert_eq!(turns[1].texts(), ["two", "You said 2 things; the last was: two"]);
}

async fn h25_a_title_job_with_off_neither_sees_nor_leaves_anything(on: Kind) {
    let (upstream, proxy, _place) = pair_on(on).await;
    say(&proxy, "s", "before").await;
    let body = body(&[user("### Task: a title")]);
    Post::chat(body.clone()).session("s").control("off").send(&proxy).await.ok();
    let seen = upstream.requests().pop().unwrap();
    assert_eq!(seen.body, body);
    assert_eq!(seen.header("session-memory"), None, "the control is ours");
    assert_eq!(proxy.stored("s").await.len(), 1);
}

async fn h25_a_tag_job_with_read_sees_everything_and_leaves_nothing(on: Kind) {
    let (upstream, proxy, _place) = pair_on(on).await;
    say(&proxy, "s", "before").await;
    Post::chat(body(&[user("tags?")])).session("s").control("read").send(&proxy).await.ok();
    assert_eq!(last_seen(&upstream), ["before", "You said 1 thing: before", "tags?"]);
    assert_eq!(proxy.stored("s").await.len(), 1);
}

async fn h26_a_window_never_splits_a_tool_exchange(on: Kind) {
    let (upstream, proxy, _place) = pair_with(on, |launch| launch.config("window_turns = 4\n")).await;
    upstream.set_model(refuse_unanswered_calls);
    let mut cut = 0;
    for round in 0..8 {
        upstream.push(Reply::message(&calls(&["a"])));
        say(&proxy, "s", &format!("question {round}")).await;
        Post::chat(body(&[result("a", "found")])).session("s").send(&proxy).await.ok();
        let seen = upstream.requests().pop().unwrap().messages();
        assert_eq!(seen[0]["role"], "user", "round {round}");
        cut += usize::from(seen[0]["content"] != "question 0");
    }
    assert!(cut > 0, "the window cut something");
    assert_eq!(proxy.stored("s").await.len(), 16, "and the log is whole");
}

async fn h27_a_store_that_cannot_write_does_not_hold_the_reply_back(on: Kind) {
    let place = Place::alone(on).await;
    let upstream = Upstream::start().await.unwrap();
    let proxy = place.launch(&upstream).arg("--commit-wait").arg("200ms").start().await;
    say(&proxy, "s", "before").await;
    // On a busy machine this reply was not waited for either.
    stored_turns(&proxy, "s", 1).await;
    let read_only = ReadOnly::begin(&place, proxy.launch()).await;
    let answer = Post::chat(stream_body(&[user("during")])).session("s").send(&proxy).await.ok();
    assert_eq!(answer.said(), "You said 2 things; the last was: during");
    assert!(answer.text().ends_with("data: [DONE]\n\n"));
    assert_eq!(proxy.stored("s").await.len(), 1, "the store takes no writes");
    drop(read_only);
    stored_turns(&proxy, "s", 2).await;
    assert_eq!(upstream.request_count(), 2);
    assert!(proxy.log().contains("store"), "the delay is told in the log: {}", proxy.log());
}

async fn h28_keepalives_that_end_in_an_error_frame_are_no_reply(on: Kind) {
    let (upstream, proxy, _place) = pair_on(on).await;
    let mut reply = Reply::event_stream();
    for _ in 0..5 {
        reply = reply.then(Step::Send(": ping\n\n".into()));
    }
    reply = reply.then(Step::Send("data: {\"error\":{\"message\":\"gone\",\"code\":500}}\n\n".into())).done();
    upstream.push(reply.clone());
    let answer = Post::chat(stream_body(&[user("hi")])).session("s").send(&proxy).await.ok();
    assert_eq!(answer.body, reply.body());
    assert!(proxy.stored("s").await.is_empty());
}

async fn h29_of_two_choices_the_first_is_remembered(on: Kind) {
    let (upstream, proxy, _place) = pair_on(on).await;
    let choice = |index: usize, text: &str| json!({"index": index, "message": assistant(text), "finish_reason": "stop"});
    let completion =
        json!({"id": "c", "object": "chat.completion", "choices": [choice(1, "B"), choice(0, "A")]});
    upstream.push(Reply::json(StatusCode::OK, &completion));
    let request = json!({"model": "m", "n": 2, "messages": [user("hi")]}).to_string();
    let answer = Post::chat(request).session("s").send(&proxy).await.ok();
    assert_eq!(serde_json::from_slice::<Value>(&answer.body).unwrap(), completion);
    assert_eq!(proxy.stored("s").await[0].texts(), ["hi", "A"]);
}

async fn h30_a_signed_request_is_left_alone(on: Kind) {
    let (upstream, proxy, _place) = pair_on(on).await;
    let body = body(&[user("hi")]);
    let signature = "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/bedrock/aws4_request, SignedHeaders=host, Signature=0";
    for _ in 0..2 {
        let post = Post::chat(body.clone()).session("s").header("authorization", signature);
        assert_eq!(post.send(&proxy).await.ok().outcome(), "bypass");
        assert_eq!(upstream.requests().pop().unwrap().body, body);
    }
    assert!(proxy.sessions().await.is_empty());
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}
