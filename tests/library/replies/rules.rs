//! Replies beyond the fixtures: each rule of the recorder, and the streams that made it necessary.

use serde_json::{Value, json};
use tower_session_memory::protocol::{Protocol, ReplyKind, ReplyLimits, Skip, openai_chat::OpenAiChat};

use super::recorded::{End, Recorded, record, record_every_way};

/// A stream of these deltas, all but the last of which are JSON text; then the finish reason and `[DONE]`.
fn stream(deltas: &[&str], finish_reason: &str) -> String {
    let frames =
        deltas.iter().map(|delta| frame(&format!(r#"{{"index":0,"delta":{delta},"finish_reason":null}}"#)));
    let finish = frame(&format!(r#"{{"index":0,"delta":{{}},"finish_reason":"{finish_reason}"}}"#));
    frames.chain([finish, "data: [DONE]\n\n".to_owned()]).collect()
}

fn frame(choice: &str) -> String {
    format!("data: {{\"model\":\"m\",\"choices\":[{choice}]}}\n\n")
}

/// A stream of these deltas that stops there.
fn unfinished(deltas: &[&str]) -> String {
    deltas
        .iter()
        .map(|delta| frame(&format!(r#"{{"index":0,"delta":{delta},"finish_reason":null}}"#)))
        .collect()
}

fn streamed(body: impl AsRef<[u8]>) -> Recorded {
    record_every_way(&OpenAiChat::default(), ReplyKind::EventStream, End::OfBody, body.as_ref())
}

fn left(body: impl AsRef<[u8]>) -> Recorded {
    record_every_way(&OpenAiChat::default(), ReplyKind::EventStream, End::ClientLeft, body.as_ref())
}

fn answered(body: impl AsRef<[u8]>) -> Recorded {
    record_every_way(&OpenAiChat::default(), ReplyKind::Json, End::OfBody, body.as_ref())
}

/// A JSON reply with this message.
fn reply(message: &str, finish_reason: &str) -> String {
    let choice = format!(r#"{{"index":0,"message":{message},"finish_reason":"{finish_reason}"}}"#);
    format!(r#"{{"model":"m","choices":[{choice}],"usage":{{"total_tokens":3}}}}"#)
}

/// The calls of a stream as (id, name, arguments); ids that we made are empty.
fn calls(deltas: &[&str]) -> Vec<(String, String, String)> {
    let recorded = streamed(stream(deltas, "tool_calls"));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let message = recorded.message();
    let calls = message["tool_calls"].as_array().unwrap().iter();
    calls
        .zip(recorded.outcome.unwrap().calls)
        .map(|(call, id)| (id, text(&call["function"]["name"]), text(&call["function"]["arguments"])))
        .collect()
}

fn call(id: &str, name: &str, arguments: &str) -> (String, String, String) {
    (id.to_owned(), name.to_owned(), arguments.to_owned())
}

// Text

#[test]
fn a_surrogate_pair_split_over_two_deltas_is_put_together_byte_for_byte() {
    let recorded = streamed(stream(&[r#"{"content":"a\ud83d"}"#, r#"{"content":"\ude00\/\u0041"}"#], "stop"));
    assert_eq!(recorded.raw(), r#"{"role":"assistant","content":"a\ud83d\ude00\/\u0041"}"#);
}

#[test]
fn a_lone_surrogate_is_kept_as_it_was_sent() {
    let recorded = streamed(stream(&[r#"{"content":"\ude00 \ud83d"}"#], "length"));
    assert_eq!(recorded.raw(), r#"{"role":"assistant","content":"\ude00 \ud83d"}"#);
}

#[test]
fn numbers_and_escapes_of_members_that_nobody_knows_are_kept_as_they_were_sent() {
    let odd = r#"{"content":"x","n":123456789012345678901234567890.10,"e":1e999,"o":{"a":1,"a":0.10},"\u0074":"\/"}"#;
    let recorded = streamed(stream(&[odd], "stop"));
    assert_eq!(
        recorded.raw(),
        r#"{"role":"assistant","content":"x","n":123456789012345678901234567890.10,"e":1e999,"o":{"a":1,"a":0.10},"\u0074":"\/"}"#
    );
}

#[test]
fn unknown_lists_grow_and_other_unknown_members_are_replaced() {
    let deltas = [
        r#"{"content":"x","images":[ {"a":1} ],"note":"one"}"#,
        r#"{"images":[],"note":null}"#,
        r#"{"images":[2],"note":"two"}"#,
    ];
    let message = streamed(stream(&deltas, "stop")).message();
    assert_eq!(message, json!({"role":"assistant","content":"x","images":[{"a":1},2],"note":"two"}));
}

#[test]
fn every_kind_of_reasoning_text_is_joined() {
    for name in ["reasoning_content", "reasoning", "reasoning_text", "thinking", "refusal"] {
        let deltas = [format!(r#"{{"{name}":"a"}}"#), format!(r#"{{"{name}":"b","content":"x"}}"#)];
        let message = streamed(stream(&[&deltas[0], &deltas[1]], "stop")).message();
        assert_eq!(message[name], "ab", "{name}");
    }
}

#[test]
fn a_thought_without_an_answer_says_nothing() {
    let recorded = streamed(stream(&[r#"{"content":"","reasoning":"hm"}"#], "stop"));
    assert_eq!(recorded.skip(), Skip::EmptyMessage);
}

#[test]
fn a_role_of_another_name_is_kept_and_a_blank_one_is_not() {
    let message =
        streamed(stream(&[r#"{"role":"model","content":"x"}"#, r#"{"role":" "}"#], "stop")).message();
    assert_eq!(message["role"], "model");
}

#[test]
fn mistral_thoughts_and_text_stay_a_list_of_parts_with_neighbours_merged() {
    let deltas = [
        r#"{"role":"assistant","content":""}"#,
        r#"{"content":[{"type":"thinking","thinking":[{"type":"text","text":"Let "}]}]}"#,
        r#"{"content":[{"type":"thinking","thinking":[{"type":"text","text":"me"}],"closed":true}]}"#,
        r#"{"content":"Ans"}"#,
        r#"{"content":[{"type":"text","text":"wer"}]}"#,
        r#"{"content":[{"type":"reference","reference_ids":[1]}]}"#,
        r#"{"content":"."}"#,
    ];
    let expected = json!([
        {"type":"thinking","thinking":[{"type":"text","text":"Let me"}],"closed":true},
        {"type":"text","text":"Answer"},
        {"type":"reference","reference_ids":[1]},
        {"type":"text","text":"."},
    ]);
    assert_eq!(streamed(stream(&deltas, "stop")).message()["content"], expected);
    assert_eq!(streamed(stream(&deltas[..3], "stop")).skip(), Skip::EmptyMessage, "thoughts alone");
}

#[test]
fn text_before_the_first_part_becomes_a_part() {
    let deltas = [r#"{"content":"a\n"}"#, r#"{"content":[{"type":"image_url","image_url":{"url":"u"}}]}"#];
    let expected = json!([{"type":"text","text":"a\n"}, {"type":"image_url","image_url":{"url":"u"}}]);
    assert_eq!(streamed(stream(&deltas, "stop")).message()["content"], expected);
}

#[test]
fn reasoning_details_are_merged_by_index_and_type_and_keep_their_order() {
    let deltas = [
        r#"{"reasoning_details":[{"type":"reasoning.text","index":0,"text":"a","signature":null,"format":"f"}]}"#,
        r#"{"reasoning_details":[{"type":"reasoning.encrypted","index":0,"data":"X"},{"type":"loose","text":"1"}]}"#,
        r#"{"reasoning_details":[{"type":"reasoning.text","index":0,"text":"b","signature":"s","format":"f"}]}"#,
        r#"{"reasoning_details":[{"type":"loose","text":"2"},{"type":"s","index":1,"summary":"x"}]}"#,
        r#"{"content":"y","reasoning_details":[{"index":1,"summary":"y"}]}"#,
    ];
    let expected = json!([
        {"type":"reasoning.text","index":0,"text":"ab","signature":"s","format":"f"},
        {"type":"reasoning.encrypted","index":0,"data":"X"},
        {"type":"loose","text":"1"},
        {"type":"loose","text":"2"},
        {"type":"s","index":1,"summary":"xy"},
    ]);
    assert_eq!(streamed(stream(&deltas, "stop")).message()["reasoning_details"], expected);
}

#[test]
fn what_providers_refuse_on_the_way_back_is_dropped() {
    let delta = r#"{"content":"x","annotations":[1],"citations":["u"],"search_results":[1],"executed_tools":[1],
        "parsed":{"a":1},"obfuscation":"zz","function_call":null,"tool_calls":[],"audio":{"data":"AAAA"}}"#;
    let recorded = streamed(stream(&[&delta.replace('\n', " ")], "stop"));
    assert_eq!(recorded.raw(), r#"{"role":"assistant","content":"x"}"#);
}

// Tool calls

#[test]
fn calls_with_the_same_index_and_other_ids_are_other_calls() {
    let deltas = [
        r#"{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{\"x\":1}"}}]}"#,
        r#"{"tool_calls":[{"index":0,"id":"b","function":{"name":"f","arguments":"{}"}}]}"#,
        r#"{"tool_calls":[{"index":0,"id":"c","function":{"name":"g","arguments":"{}"}}]}"#,
    ];
    assert_eq!(calls(&deltas), [call("a", "f", r#"{"x":1}"#), call("b", "f", "{}"), call("c", "g", "{}")]);
}

#[test]
fn an_id_that_changes_with_every_fragment_is_one_call() {
    let deltas = [
        r#"{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{\"x\""}}]}"#,
        r#"{"tool_calls":[{"index":0,"id":"b","function":{"name":"f","arguments":":[1]"}}]}"#,
        r#"{"tool_calls":[{"index":0,"id":"c","function":{"arguments":"}"}}]}"#,
    ];
    assert_eq!(calls(&deltas), [call("a", "f", r#"{"x":[1]}"#)]);
}

#[test]
fn a_fragment_that_begins_with_a_bracket_inside_open_arguments_is_no_new_call() {
    let deltas = [
        r#"{"tool_calls":[{"index":0,"function":{"name":"f","arguments":"{\"x\":"}}]}"#,
        r#"{"tool_calls":[{"index":0,"function":{"name":"f","arguments":"[1]"}}]}"#,
        r#"{"tool_calls":[{"index":0,"function":{"name":"f","arguments":"}"}}]}"#,
    ];
    assert_eq!(calls(&deltas), [call("", "f", r#"{"x":[1]}"#)]);
}

#[test]
fn a_repeated_id_with_another_index_and_a_name_is_another_call() {
    let deltas = [
        r#"{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}]}"#,
        r#"{"tool_calls":[{"index":1,"id":"a","function":{"name":"f","arguments":"{}"}}]}"#,
    ];
    assert_eq!(calls(&deltas), [call("a", "f", "{}"), call("a", "f", "{}")]);
}

#[test]
fn a_known_id_without_an_index_continues_its_call() {
    let deltas = [
        r#"{"tool_calls":[{"id":"a","function":{"name":"f","arguments":""}},{"id":"b","function":{"name":"g"}}]}"#,
        r#"{"tool_calls":[{"id":"b","function":{"arguments":"{\"b\":1}"}}]}"#,
        r#"{"tool_calls":[{"id":"a","function":{"name":"f","arguments":"{\"a\":1}"}}]}"#,
        r#"{"tool_calls":[{"id":"a","function":{"name":"h","arguments":"{}"}}]}"#,
    ];
    assert_eq!(
        calls(&deltas),
        [call("a", "f", r#"{"a":1}"#), call("b", "g", r#"{"b":1}"#), call("a", "h", "{}")]
    );
}

#[test]
fn an_id_that_comes_late_is_taken() {
    let deltas = [
        r#"{"tool_calls":[{"index":0,"function":{"name":"f","arguments":""}}]}"#,
        r#"{"tool_calls":[{"index":0,"id":"a","function":{"arguments":"{}"}}]}"#,
    ];
    assert_eq!(calls(&deltas), [call("a", "f", "{}")]);
}

#[test]
fn a_name_without_id_and_index_is_a_new_call() {
    let deltas = [
        r#"{"tool_calls":[{"function":{"name":"f","arguments":"{}"}}]}"#,
        r#"{"tool_calls":[{"function":{"name":"f","arguments":"{}"}}]}"#,
    ];
    assert_eq!(calls(&deltas), [call("", "f", "{}"), call("", "f", "{}")]);
}

#[test]
fn arguments_alone_go_to_the_only_unfinished_call_or_nowhere() {
    let open = r#"{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}},
        {"index":1,"id":"b","function":{"name":"g","arguments":"{"}}]}"#
        .replace('\n', " ");
    let more = r#"{"tool_calls":[{"function":{"arguments":"}"}}]}"#;
    assert_eq!(calls(&[&open, more]), [call("a", "f", "{}"), call("b", "g", "{}")]);

    let two = open.replace("\"{}\"", "\"{\"");
    assert_eq!(
        calls(&[&two, more]),
        [call("a", "f", "{"), call("b", "g", "{")],
        "a guess could spoil either"
    );
}

#[test]
fn names_may_come_in_pieces_or_growing() {
    for (first, second) in [("get_", "weather"), ("get", "get_weather"), ("get_weather", "get_weather")] {
        let deltas = [
            format!(r#"{{"tool_calls":[{{"index":0,"id":"a","function":{{"name":"{first}"}}}}]}}"#),
            format!(
                r#"{{"tool_calls":[{{"index":0,"function":{{"name":"{second}","arguments":"{{}}"}}}}]}}"#
            ),
        ];
        assert_eq!(calls(&[&deltas[0], &deltas[1]]), [call("a", "get_weather", "{}")], "{first} {second}");
    }
}

#[test]
fn another_name_after_arguments_is_another_call() {
    let deltas = [
        r#"{"tool_calls":[{"index":0,"function":{"name":"get","arguments":"{}"}}]}"#,
        r#"{"tool_calls":[{"index":0,"function":{"name":"get_all","arguments":"{}"}}]}"#,
    ];
    assert_eq!(calls(&deltas), [call("", "get", "{}"), call("", "get_all", "{}")]);
}

#[test]
fn calls_are_put_in_order_only_if_all_have_an_index() {
    let b = r#"{"index":1,"id":"b","function":{"name":"g","arguments":"{}"}}"#;
    let a = r#"{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}"#;
    let c = r#"{"id":"c","function":{"name":"h","arguments":"{}"}}"#;
    let ids = |list: &str| {
        calls(&[&format!(r#"{{"tool_calls":[{list}]}}"#)]).into_iter().map(|call| call.0).collect::<String>()
    };
    assert_eq!(ids(&format!("{b},{a}")), "ab");
    assert_eq!(ids(&format!("{b},{a},{c}")), "bac");
}

#[test]
fn a_late_signature_without_index_id_or_name_belongs_to_the_last_call() {
    let deltas = [
        r#"{"tool_calls":[{"id":"a","function":{"name":"f","arguments":"{}"},"extra_content":{"google":{"x":1}}}]}"#,
        r#"{"tool_calls":[{"extra_content":{"google":{"thought_signature":"S="}}}]}"#,
    ];
    let message = streamed(stream(&deltas, "stop")).message();
    assert_eq!(
        message["tool_calls"],
        json!([{"id":"a","type":"function","function":{"name":"f","arguments":"{}"},
            "extra_content":{"google":{"x":1,"thought_signature":"S="}}}])
    );
}

#[test]
fn arguments_that_come_as_an_object_become_compact_text() {
    let delta = r#"{"tool_calls":[{"id":"a","function":{"name":"f","arguments":{ "q" : "a \"b\" \u00e9", "n": [1, 2] }}}]}"#;
    assert_eq!(calls(&[delta]), [call("a", "f", r#"{"q":"a \"b\" \u00e9","n":[1,2]}"#)]);
}

#[test]
fn custom_tools_keep_their_free_text() {
    let deltas = [
        r#"{"tool_calls":[{"index":0,"id":"a","type":"custom","custom":{"name":"sh","input":"ls"}}]}"#,
        r#"{"tool_calls":[{"index":0,"custom":{"input":" -l \ud83d"}}]}"#,
        r#"{"tool_calls":[{"index":0,"custom":{"input":"\ude00"}}]}"#,
    ];
    let recorded = streamed(stream(&deltas, "tool_calls"));
    assert_eq!(
        recorded.raw(),
        r#"{"role":"assistant","content":null,"tool_calls":[{"id":"a","type":"custom","custom":{"name":"sh","input":"ls -l \ud83d\ude00"}}]}"#
    );
}

#[test]
fn a_call_without_a_name_is_left_out() {
    let delta = r#"{"content":"x","tool_calls":[{"index":0,"id":"a","function":{"arguments":"{}"}}]}"#;
    assert_eq!(streamed(stream(&[delta], "stop")).raw(), r#"{"role":"assistant","content":"x"}"#);
}

#[test]
fn a_call_without_an_id_gets_one_that_upstreams_take_and_binds_by_position() {
    let delta = r#"{"tool_calls":[{"index":0,"id":null,"function":{"name":"f","arguments":"{}"}}]}"#;
    let mut recorder = recorder(ReplyKind::EventStream);
    recorder.feed(stream(&[delta], "tool_calls").as_bytes());
    let (first, second) = (recorder.finish().unwrap(), recorder.finish().unwrap());
    assert_eq!(first.items[0].raw(), second.items[0].raw(), "an id is made once");
    assert_eq!(first.items[0].about().calls, [""], "a client has never seen the id");
    let message: Value = serde_json::from_slice(first.items[0].raw()).unwrap();
    let id = message["tool_calls"][0]["id"].as_str().unwrap();
    assert!(id.strip_prefix("call_").is_some_and(|id| id.len() == 32), "{id}");
}

#[test]
fn an_id_is_kept_as_it_was_sent() {
    let delta =
        r#"{"tool_calls":[{"index":0,"id":"a\/\u0062|sig=","function":{"name":"f","arguments":"{}"}}]}"#;
    let recorded = streamed(stream(&[delta], "tool_calls"));
    assert!(recorded.raw().contains(r#""id":"a\/\u0062|sig=""#), "{}", recorded.raw());
    assert_eq!(recorded.outcome.unwrap().calls, ["a/b|sig="]);
}

#[test]
fn a_call_cut_off_by_length_is_not_recorded() {
    for arguments in ["", "{", r#"{\"a\":"#] {
        let delta = format!(
            r#"{{"tool_calls":[{{"index":0,"id":"a","function":{{"name":"f","arguments":"{arguments}"}}}}]}}"#
        );
        for reason in ["length", "content_filter"] {
            assert_eq!(
                streamed(stream(&[&delta], reason)).skip(),
                Skip::IncompleteToolCall,
                "{reason} {arguments}"
            );
        }
        assert!(streamed(stream(&[&delta], "tool_calls")).outcome.is_ok(), "{arguments}");
        let call = delta.replace(r#""function":"#, r#""type":"function","function":"#);
        assert_eq!(answered(reply(&call, "length")).skip(), Skip::IncompleteToolCall, "JSON: {arguments}");
    }
    let whole =
        r#"{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{\"a\":\"\ud83d\"}"}}]}"#;
    assert!(streamed(stream(&[whole], "length")).outcome.is_ok(), "a lone surrogate is no cut");
    let legacy = r#"{"function_call":{"name":"f","arguments":"{\"a"}}"#;
    assert_eq!(streamed(stream(&[legacy], "length")).skip(), Skip::IncompleteToolCall);
}

#[test]
fn arguments_nested_a_million_deep_cost_no_stack() {
    let deep = "[".repeat(1_000_000) + &"]".repeat(1_000_000);
    let text = format!(
        r#"{{"tool_calls":[{{"index":0,"id":"a","function":{{"name":"f","arguments":"{deep}"}},"x":{deep}}}]}}"#
    );
    let object = format!(
        r#"{{"n":{deep},"tool_calls":[{{"index":0,"id":"a","function":{{"name":"f","arguments":{deep}}}}}]}}"#
    );
    for delta in [&text, &object] {
        let body = stream(&[delta], "length");
        let limits = ReplyLimits::new(64 << 20, 64 << 20);
        let recorded =
            record(&OpenAiChat::default(), ReplyKind::EventStream, limits, End::OfBody, &[body.as_bytes()]);
        assert!(recorded.outcome.is_ok() || recorded.skip() == Skip::IncompleteToolCall);
        let body = reply(delta, "length");
        let recorded =
            record(&OpenAiChat::default(), ReplyKind::Json, limits, End::OfBody, &[body.as_bytes()]);
        assert!(recorded.outcome.is_ok(), "{:?}", recorded.outcome.map(|_| ()));
    }
}

// Frames

#[test]
fn a_stream_that_begins_with_a_mark_and_uses_bare_carriage_returns_is_read() {
    let body = format!("\u{feff}{}", stream(&[r#"{"content":"x"}"#], "stop")).replace('\n', "\r");
    let recorded = streamed(&body);
    assert_eq!(recorded.message()["content"], "x");
    assert_eq!(recorded.terminal, body.find("data: [DONE]"));
}

#[test]
fn an_error_in_any_shape_fails_the_stream() {
    let said = stream(&[r#"{"content":"x"}"#], "stop");
    let said = said.strip_suffix("data: [DONE]\n\n").unwrap();
    for error in [
        "data: {\"error\":{\"code\":500}}\n\n",
        "data: {\"error\":\"boom\"}\n\n",
        "data: {\"error\":{},\"choices\":[]}\n\n",
        "error: {\"code\":500}\n\n",
        "error: {\"code\":500}\n",
        "event: error\ndata: {}\n\n",
        "event: error\ndata:\n\n",
        ": ping\n\n: ping\n\ndata: {\"error\":{\"message\":\"late\"}}\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"error\"}]}\n\n",
    ] {
        let recorded = streamed(format!("{said}{error}data: [DONE]\n\n"));
        assert_eq!(recorded.skip(), Skip::ErrorFrame, "{error}");
        assert!(!recorded.finished, "{error}");
        assert_eq!(left(format!("{said}{error}")).skip(), Skip::ErrorFrame, "{error}");
    }
    for fine in
        ["data: {\"error\":null,\"choices\":[]}\n\n", "data: {\"error\":\"\"}\n\n", "event: error\n\n"]
    {
        assert!(streamed(format!("{said}{fine}")).outcome.is_ok(), "{fine}");
    }
}

#[test]
fn a_frame_that_is_no_json_fails_the_stream_and_one_that_is_no_object_does_not() {
    let said = stream(&[r#"{"content":"x"}"#], "stop");
    for broken in
        ["data: {\"choices\":\n\n", "data: hello\n\n", "data: {}{}\n\n", "data: {\"choices\":1}\n\n"]
    {
        assert_eq!(streamed(format!("{broken}{said}")).skip(), Skip::Unparseable, "{broken}");
    }
    for odd in
        ["data: 1\n\n", "data: [1,{}]\n\n", "data: null\n\n", "data:\n\n", "data:   \n\n", "data: {}\n\n"]
    {
        assert!(streamed(format!("{odd}{said}")).outcome.is_ok(), "{odd}");
    }
}

#[test]
fn a_done_inside_an_event_is_not_the_end() {
    let said = stream(&[r#"{"content":"x"}"#], "stop").replace("\n\ndata: [DONE]", "\ndata: [DONE]");
    let recorded = streamed(&said);
    assert_eq!(
        (recorded.skip(), recorded.terminal),
        (Skip::Unparseable, None),
        "clients cannot read it either"
    );
}

#[test]
fn the_end_is_named_once_and_what_follows_is_ignored() {
    let said = stream(&[r#"{"content":"x"}"#], "stop");
    let recorded = streamed(format!("{said}error: 1\n\ndata: {{\"error\":1}}\n\ndata: [DONE]\n\n"));
    assert_eq!(recorded.message()["content"], "x");
    assert_eq!(recorded.terminal, said.find("data: [DONE]"));
    let bare = said.replace("data: [DONE]\n\n", "data:[DONE]");
    assert_eq!(streamed(&bare).terminal, None, "a line that has not ended is not the end");
}

#[test]
fn an_empty_finish_reason_is_none() {
    let body = frame(r#"{"delta":{"content":"x"},"finish_reason":""}"#);
    assert_eq!(streamed(&body).skip(), Skip::NoFinishReason);
}

#[test]
fn done_is_proof_only_where_it_was_declared_to_be() {
    let body = unfinished(&[r#"{"content":"x"}"#]);
    let done = format!("{body}data: [DONE]\n\n");
    assert_eq!(streamed(&done).skip(), Skip::NoFinishReason);
    let lenient = OpenAiChat::default().with_accept_done_without_finish_reason(true);
    let ends = |body: &str| record_every_way(&lenient, ReplyKind::EventStream, End::OfBody, body.as_bytes());
    let recorded = ends(&done);
    assert!(recorded.finished);
    assert_eq!(recorded.message()["content"], "x");
    assert_eq!(ends(&body).skip(), Skip::NoFinishReason, "without it the stream was cut");
    assert_eq!(ends(&format!("{body}data: {{\"error\":1}}\n\ndata: [DONE]\n\n")).skip(), Skip::ErrorFrame);
}

#[test]
fn model_usage_and_finish_reason_are_told() {
    let body = "data: {\"model\":\"\",\"choices\":[]}\n\n".to_owned()
        + &stream(&[r#"{"content":"x"}"#], "length").replace(
            "data: [DONE]",
            "data: {\"model\":\"later\",\"choices\":[],\"usage\":{\"total_tokens\": 1e2}}\n\ndata: [DONE]",
        );
    let turn = streamed(body).outcome.unwrap();
    assert_eq!(turn.model.as_deref(), Some("m"));
    assert_eq!(turn.finish_reason.as_deref(), Some("length"));
    assert_eq!(turn.usage.as_deref(), Some("{\"total_tokens\": 1e2}"), "as it was sent");
    let turn = answered(reply(r#"{"content":"x"}"#, "stop")).outcome.unwrap();
    assert_eq!((turn.model.as_deref(), turn.usage.as_deref()), (Some("m"), Some("{\"total_tokens\":3}")));
}

// The client leaves

#[test]
fn what_was_said_before_the_client_left_is_kept() {
    let recorded = left(unfinished(&[r#"{"role":"assistant","reasoning":"h"}"#, r#"{"content":"Hel"}"#]));
    assert_eq!(recorded.raw(), r#"{"role":"assistant","content":"Hel","reasoning":"h"}"#);
    assert_eq!(recorded.outcome.unwrap().finish_reason, None);
    assert_eq!(left(unfinished(&[r#"{"role":"assistant","content":""}"#])).skip(), Skip::EmptyMessage);
    assert_eq!(left("").skip(), Skip::EmptyMessage);
}

#[test]
fn half_a_character_is_not_kept_when_the_client_leaves() {
    let recorded = left(unfinished(&[r#"{"content":"a\\\ud83d"}"#]));
    assert_eq!(recorded.raw(), r#"{"role":"assistant","content":"a\\"}"#);
    assert_eq!(left(unfinished(&[r#"{"content":"\ud83d"}"#])).skip(), Skip::EmptyMessage);
}

#[test]
fn calls_that_could_have_gone_on_are_dropped_when_the_client_leaves() {
    let call = |index: u8, arguments: &str| {
        format!(r#"{{"index":{index},"id":"{index}","function":{{"name":"f","arguments":"{arguments}"}}}}"#)
    };
    let delta = format!(
        r#"{{"content":"x","audio":{{"id":"a"}},"tool_calls":[{},{},{},{},{{"index":4,"id":"4","custom":{{"name":"c","input":"i"}}}}]}}"#,
        call(0, r#"{\"a\":1}"#),
        call(1, ""),
        call(2, "12"),
        call(3, r#"{\"a\""#),
    );
    let recorded = left(unfinished(&[&delta]));
    assert_eq!(recorded.outcome.as_ref().unwrap().calls, ["0"]);
    assert_eq!(recorded.message().get("audio"), None);
    let calls_only = format!(r#"{{"content":null,"tool_calls":[{}]}}"#, call(0, "{"));
    assert_eq!(left(unfinished(&[&calls_only])).skip(), Skip::EmptyMessage);
    let finished = stream(&[&delta], "tool_calls");
    assert_eq!(left(&finished).outcome, streamed(&finished).outcome, "a finished reply is kept whole");
}

#[test]
fn half_a_json_reply_is_nothing_when_the_client_leaves() {
    let body = reply(r#"{"content":"x"}"#, "stop");
    let ends =
        |end, body: &str| record_every_way(&OpenAiChat::default(), ReplyKind::Json, end, body.as_bytes());
    assert_eq!(ends(End::ClientLeft, &body[..body.len() - 1]).skip(), Skip::NoFinishReason);
    assert_eq!(ends(End::OfBody, &body[..body.len() - 1]).skip(), Skip::Unparseable);
    assert_eq!(ends(End::ClientLeft, &body).outcome, ends(End::OfBody, &body).outcome);
}

// JSON replies

#[test]
fn only_what_is_dropped_leaves_a_json_reply_and_every_other_byte_stays() {
    for (message, stored) in [
        (
            r#"{ "role" : "assistant", "content" : "a\/\ud83d" }"#,
            r#"{ "role" : "assistant", "content" : "a\/\ud83d" }"#,
        ),
        (
            r#"{ "refusal":null , "role":"assistant" , "annotations":[ ] , "content":"x", "n": 1e999 , "tool_calls":[] }"#,
            r#"{"role":"assistant" , "content":"x", "n": 1e999 }"#,
        ),
        (
            r#"{"role":"assistant","content":null,"refusal":"no","audio":null}"#,
            r#"{"role":"assistant","content":null,"refusal":"no"}"#,
        ),
        (r#"{"content":"x"}"#, r#"{"role":"assistant","content":"x"}"#),
        (r#"{"content":"x","role":null}"#, r#"{"role":"assistant","content":"x"}"#),
        (r#"{"role":"","content":"x"}"#, r#"{"role":"assistant","content":"x"}"#),
        (
            r#"{"role":"assistant","content":"","audio":{"data":"AA==","id":"au_1","expires_at":1} }"#,
            r#"{"role":"assistant","content":"","audio":{"id":"au_1"} }"#,
        ),
        (
            r#"{"role":"assistant","content":null,"tool_calls":[ {"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}, {"id":"b","x": 1.0,"index":1} ]}"#,
            r#"{"role":"assistant","content":null,"tool_calls":[ {"id":"a","function":{"name":"f","arguments":"{}"}}, {"id":"b","x": 1.0} ]}"#,
        ),
        (
            r#"{"role":"assistant","content":null,"tool_calls":[{"index":0,"type":"function"},{"id":null},{"id":""},{}]}"#,
            r#"{"role":"assistant","content":null,"tool_calls":[{"id":"call_","type":"function"},{"id":"call_"},{"id":"call_"},{"id":"call_"}]}"#,
        ),
    ] {
        assert_eq!(answered(reply(message, "stop")).raw(), stored, "{message}");
    }
}

#[test]
fn a_json_reply_without_a_finish_reason_is_not_recorded() {
    for choice in [
        r#"{"index":0,"message":{"content":"x"},"finish_reason":null}"#,
        r#"{"message":{"content":"x"}}"#,
        r#"{"index":1,"message":{"content":"x"},"finish_reason":"stop"}"#,
        "",
    ] {
        let recorded = answered(format!(r#"{{"choices":[{choice}]}}"#));
        assert_eq!(recorded.skip(), Skip::NoFinishReason, "{choice}");
        assert_eq!(
            (recorded.finished, recorded.terminal),
            (false, None),
            "nothing waits for a turn: {choice}"
        );
    }
    assert_eq!(answered(reply(r#"{"content":"x"}"#, "error")).skip(), Skip::ErrorFrame);
}

#[test]
fn a_body_that_is_no_reply_is_not_recorded() {
    for body in ["", "1", "[]", "\"{}\"", "{]", "{\"choices\":[1]}", "{\"choices\":{}}", "<html></html>"] {
        assert_eq!(answered(body).skip(), Skip::Unparseable, "{body}");
    }
    for empty in ["null", "{}", r#"{"content":[]}"#, r#"{"content":[{"type":"text","text":""}]}"#] {
        assert_eq!(answered(reply(empty, "stop")).skip(), Skip::EmptyMessage, "{empty}");
    }
    assert_eq!(answered(r#"{"error":{"message":"x"},"choices":[]}"#).skip(), Skip::ErrorBody);
}

#[test]
fn the_brace_that_closes_a_json_reply_is_terminal() {
    let body = format!("\u{feff} {}\n", reply(r#"{"content":"}"}"#, "stop"));
    let recorded = answered(&body);
    assert_eq!(recorded.terminal, Some(body.len() - 2));
    assert_eq!(recorded.message()["content"], "}");
}

#[test]
fn a_byte_that_is_no_text_costs_one_character_of_a_json_reply() {
    let mut body = reply(r#"{"content":"a?b"}"#, "stop").into_bytes();
    let at = body.iter().position(|&b| b == b'?').unwrap();
    body[at] = 0xFF;
    assert_eq!(answered(&body).message()["content"], "a\u{fffd}b");
}

// Limits

#[test]
fn a_reply_past_its_limit_is_not_recorded_and_ends_nothing() {
    let protocol = OpenAiChat::default();
    let fits = |kind, reply, event, body: &str| {
        let limits = ReplyLimits::new(reply, event);
        let recorded = record(&protocol, kind, limits, End::OfBody, &[body.as_bytes()]);
        let bytes: Vec<_> = body.as_bytes().chunks(1).collect();
        let bytewise = record(&protocol, kind, limits, End::OfBody, &bytes);
        assert_eq!(bytewise.outcome, recorded.outcome);
        assert_eq!(bytewise.terminal.is_some(), recorded.terminal.is_some());
        match recorded.outcome {
            Ok(_) => true,
            Err(skip) => {
                assert_eq!((skip, recorded.terminal, recorded.finished), (Skip::TooLarge, None, false));
                false
            }
        }
    };
    let body = stream(&[r#"{"content":"12345"}"#, r#"{"content":"12345"}"#], "stop");
    let largest = body.lines().map(str::len).max().unwrap();
    assert!(fits(ReplyKind::EventStream, 10, largest, &body));
    assert!(!fits(ReplyKind::EventStream, 9, largest, &body), "the text counts");
    assert!(!fits(ReplyKind::EventStream, 10, largest - 1, &body), "one event counts");
    let calls = r#"{"tool_calls":[{"index":0},{"index":1},{"index":2},{"index":3},{"index":4},{"index":5}]}"#;
    assert!(
        !fits(ReplyKind::EventStream, 512, 1 << 20, &stream(&[calls], "stop")),
        "empty calls cost memory"
    );
    let many: Vec<_> = (0..2000).map(|i| format!(r#"{{"index":{i}}}"#)).collect();
    let many = format!(r#"{{"tool_calls":[{}]}}"#, many.join(","));
    assert!(
        !fits(ReplyKind::EventStream, 8 << 20, 1 << 20, &stream(&[&many], "stop")),
        "and searching them time"
    );
    let body = reply(r#"{"content":"x"}"#, "stop");
    assert!(fits(ReplyKind::Json, body.len(), 0, &body));
    assert!(!fits(ReplyKind::Json, body.len() - 1, 0, &body));
}

fn recorder(kind: ReplyKind) -> Box<dyn tower_session_memory::protocol::Recorder> {
    use tower_session_memory::protocol::Protocol;
    OpenAiChat::default().recorder(kind, super::recorded::LIMITS)
}

#[test]
fn what_came_in_escape_sequences_is_kept_in_no_more_memory_than_it_takes() {
    let escaped = |letter: &str| format!(r"\u00{:x}", letter.as_bytes()[0]).repeat(100);
    let (id, model, reason) = (escaped("i"), escaped("m"), escaped("s"));
    let call = format!(
        r#"{{"index":0,"id":"{id}","type":"function","function":{{"name":"f","arguments":"{{}}"}}}}"#
    );
    let body = |said: &str| {
        format!(
            r#"{{"model":"{model}","choices":[{{"{said}":{{"tool_calls":[{call}]}},"finish_reason":"{reason}"}}]}}"#
        )
    };
    for (kind, body) in
        [(ReplyKind::Json, body("message")), (ReplyKind::EventStream, format!("data: {}\n\n", body("delta")))]
    {
        let limits = ReplyLimits::new(1 << 20, 1 << 20);
        let mut recorder = OpenAiChat::new().recorder(kind, limits);
        recorder.feed(body.as_bytes());
        let reply = recorder.finish().unwrap();
        let kept = [&reply.items[0].about().calls[0], &reply.model.unwrap(), &reply.finish_reason.unwrap()]
            .map(|text| (text[..1].to_owned(), text.capacity()));
        assert_eq!(kept, ["i", "m", "s"].map(|letter| (letter.to_owned(), 100)), "{kind:?}");
    }
}
