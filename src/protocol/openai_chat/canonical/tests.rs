use super::digest;

/// Every message of a group says the same; no two groups do.
const GROUPS: &[(&str, &[&str])] = &[
    (
        "a text, in any serialisation",
        &[
            r#"{"role":"user","content":"café / 1"}"#,
            r#"{"content":"caf\u00e9 \/ 1","role":"user"}"#,
            r#"{ "role" : "user", "name":"bob", "content" : [ {"type":"text","text":"café / 1"} ] }"#,
            r#"{"role":"user","content":[{"type":"text","text":"caf\u00E9 "},{"text":"/ 1","type":"text","cache_control":{}}]}"#,
            r#"{"r\u006fle":"user","content":"café / 1","x":null,"annotations":[1]}"#,
        ],
    ),
    ("another role", &[r#"{"role":"developer","content":"café / 1"}"#]),
    (
        "other text",
        &[
            r#"{"role":"user","content":"cafe / 1"}"#,
            r#"{"role":"user","content":["x"],"content":"cafe / 1"}"#,
        ],
    ),
    (
        "a lone surrogate is not the character, nor another surrogate",
        &[
            r#"{"role":"user","content":"\ud83d"}"#,
            r#"{"role":"user","content":[{"type":"text","text":"\uD83D"}]}"#,
        ],
    ),
    ("the other half", &[r#"{"role":"user","content":"\ude00"}"#]),
    (
        "the two halves, even from two parts",
        &[
            r#"{"role":"user","content":"😀"}"#,
            r#"{"role":"user","content":"\ud83d\ude00"}"#,
            r#"{"role":"user","content":[{"type":"text","text":"\ud83d"},{"type":"text","text":"\ude00"}]}"#,
        ],
    ),
    (
        "nothing at all",
        &[
            r#"{"role":"assistant"}"#,
            r#"{"role":"assistant","content":null}"#,
            r#"{"role":"assistant","content":""}"#,
            r#"{"role":"assistant","content":[],"tool_calls":[],"refusal":null,"audio":null,"function_call":null}"#,
            r#"{"role":"assistant","content":[{"type":"text","text":""}],"reasoning_content":"hm"}"#,
        ],
    ),
    (
        "a tool call",
        &[
            r#"{"role":"assistant","content":null,"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{\"x\":1.0,\"y\":[\"é\",null]}"}}]}"#,
            r#"{"role":"assistant","tool_calls":[{"index":0,"function":{"arguments":"{ \"y\" : [\"\\u00e9\", null], \"x\": 1 }","name":"f"},"id":"a","type":"function","extra_content":{}}]}"#,
            r#"{"role":"assistant","content":"","tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":{"x":1e0,"y":["é",null]}}}]}"#,
        ],
    ),
    (
        "other arguments",
        &[
            r#"{"role":"assistant","tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{\"x\":1,\"y\":[\"é\"]}"}}]}"#,
        ],
    ),
    (
        "another id",
        &[
            r#"{"role":"assistant","tool_calls":[{"id":"b","type":"function","function":{"name":"f","arguments":"{\"x\":1,\"y\":[\"é\",null]}"}}]}"#,
        ],
    ),
    (
        "no arguments",
        &[
            r#"{"role":"assistant","tool_calls":[{"id":"a","function":{"name":"f","arguments":""}}]}"#,
            r#"{"role":"assistant","tool_calls":[{"id":"a","function":{"name":"f","arguments":"{ }"}}]}"#,
            r#"{"role":"assistant","tool_calls":[{"id":"a","function":{"name":"f"}}]}"#,
        ],
    ),
    (
        "arguments that are no JSON",
        &[r#"{"role":"assistant","tool_calls":[{"id":"a","function":{"name":"f","arguments":"{x"}}]}"#],
    ),
    (
        "text that looks like arguments",
        &[r#"{"role":"assistant","tool_calls":[{"id":"a","function":{"name":"f","arguments":"\"{x\""}}]}"#],
    ),
    (
        "a custom call",
        &[
            r#"{"role":"assistant","tool_calls":[{"id":"a","type":"custom","custom":{"name":"f","input":"{}"}}]}"#,
            r#"{"role":"assistant","tool_calls":[{"type":"custom","custom":{"input":"{}","name":"f"},"id":"a"}],"content":""}"#,
        ],
    ),
    (
        "a custom call's input is text",
        &[
            r#"{"role":"assistant","tool_calls":[{"id":"a","type":"custom","custom":{"name":"f","input":"{ }"}}]}"#,
        ],
    ),
    (
        "a function call",
        &[
            r#"{"role":"assistant","content":null,"function_call":{"name":"f","arguments":"{\"a\":1}"}}"#,
            r#"{"role":"assistant","function_call":{"arguments":"{ \"a\": 1.0 }","name":"f"},"tool_calls":null}"#,
        ],
    ),
    (
        "a refusal",
        &[
            r#"{"role":"assistant","refusal":"no","content":null}"#,
            r#"{"role":"assistant","content":[{"type":"refusal","refusal":"no"}]}"#,
        ],
    ),
    ("the same as text", &[r#"{"role":"assistant","content":"no"}"#]),
    (
        "audio by its id",
        &[
            r#"{"role":"assistant","audio":{"id":"x"}}"#,
            r#"{"role":"assistant","content":null,"audio":{"data":"AA","id":"x","transcript":"hi"}}"#,
        ],
    ),
    (
        "a tool result",
        &[
            r#"{"role":"tool","tool_call_id":"a","content":"1"}"#,
            r#"{"role":"tool","name":"f","content":[{"type":"text","text":"1"}],"tool_call_id":"a"}"#,
        ],
    ),
    ("a result for another call", &[r#"{"role":"tool","tool_call_id":"b","content":"1"}"#]),
    (
        "text around an image",
        &[
            r#"{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"u","detail":"low"}},{"type":"text","text":"b"}]}"#,
            r#"{"role":"user","content":[{"type":"text","text":"a"},{"image_url":{"detail":"low","url":"u","x":null},"type":"image_url","cache_control":{"type":"ephemeral"}},{"type":"text","text":"b"}]}"#,
        ],
    ),
    (
        "the image after the text",
        &[
            r#"{"role":"user","content":[{"type":"text","text":"ab"},{"type":"image_url","image_url":{"url":"u","detail":"low"}}]}"#,
        ],
    ),
    (
        "another image",
        &[
            r#"{"role":"user","content":[{"type":"text","text":"ab"},{"type":"image_url","image_url":{"url":"v","detail":"low"}}]}"#,
        ],
    ),
];

#[test]
fn messages_that_say_the_same_are_equal_and_no_others() {
    let digests: Vec<Vec<_>> =
        GROUPS.iter().map(|(_, group)| group.iter().map(|m| digest(m.as_bytes())).collect()).collect();
    for (index, (name, group)) in GROUPS.iter().enumerate() {
        for (message, digest) in group.iter().zip(&digests[index]) {
            assert_eq!(*digest, digests[index][0], "{name}: {message}");
        }
        for other in 0..index {
            assert_ne!(digests[index][0], digests[other][0], "{name} is not {}", GROUPS[other].0);
        }
    }
}

#[test]
fn what_is_no_message_is_compared_byte_for_byte() {
    assert_eq!(digest(b"\xff"), digest(b"\xff"));
    assert_ne!(digest(b"[1]"), digest(b"[ 1]"));
}

#[test]
fn deep_nesting_costs_no_stack_and_is_still_compared() {
    let nested = |depth: usize, leaf: &str| {
        format!(r#"{{"role":"user","content":{}{leaf}{}}}"#, "[".repeat(depth), "]".repeat(depth))
    };
    assert_eq!(digest(nested(200_000, "1").as_bytes()), digest(nested(200_000, "1").as_bytes()));
    assert_ne!(digest(nested(200_000, "1").as_bytes()), digest(nested(200_000, "2").as_bytes()));
}

#[test]
fn numbers_are_equal_if_they_name_the_same_double() {
    let number =
        |text: &str| digest(format!(r#"{{"role":"user","content":[{{"type":"x","n":{text}}}]}}"#).as_bytes());
    for same in [["1.0", "1"], ["1e2", "100"], ["0.10", "0.1"], ["-0", "0"], ["-0.0", "0"], ["1E+2", "100.0"]]
    {
        assert_eq!(number(same[0]), number(same[1]), "{same:?}");
    }
    for other in
        [["1", "2"], ["0.1", "0.10000000000000002"], ["1e999", "1e998"], ["1", "\"1\""], ["0", "false"]]
    {
        assert_ne!(number(other[0]), number(other[1]), "{other:?}");
    }
}
