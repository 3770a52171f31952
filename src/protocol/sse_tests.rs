#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;

use super::*;

/// Everything the parser says about a stream, with its chunks of these sizes (the last one repeats).
fn parse(stream: &[u8], sizes: &[usize], limit: usize) -> Vec<String> {
    let mut parser = Parser::new(limit);
    let mut said = Vec::new();
    let mut at = 0;
    let mut sizes = sizes.iter().copied().chain(std::iter::repeat(*sizes.last().unwrap()));
    while at < stream.len() {
        let end = stream.len().min(at + sizes.next().unwrap().max(1));
        let fed = parser.feed(&stream[at..end], |item| {
            said.push(match item {
                SseItem::Opens { data, .. } => format!("opens {:?}", data.escape_ascii().to_string()),
                SseItem::Unknown { name } => format!("unknown {:?}", name.escape_ascii().to_string()),
                SseItem::Event { name, data } => {
                    format!(
                        "event {:?} {:?}",
                        name.escape_ascii().to_string(),
                        data.escape_ascii().to_string()
                    )
                }
            });
            ControlFlow::Continue(())
        });
        if fed.is_err() {
            said.push("too large".to_owned());
            break;
        }
        at = end;
    }
    said
}

/// The events' data alone, the same for every chunking.
fn data(stream: &str) -> Vec<String> {
    let whole = parse(stream.as_bytes(), &[usize::MAX / 2], 1024);
    for size in 1..=stream.len().max(1) {
        assert_eq!(
            parse(stream.as_bytes(), &[size], 1024),
            whole,
            "chunks of {size} read otherwise: {stream:?}"
        );
        assert_eq!(
            parse(stream.as_bytes(), &[size, usize::MAX / 2], 1024),
            whole,
            "a cut at {size} reads otherwise: {stream:?}"
        );
    }
    whole
        .iter()
        .filter_map(|said| said.strip_prefix("event "))
        .map(|said| said.split_once(' ').unwrap().1.trim_matches('"').to_owned())
        .collect()
}

#[test]
fn every_line_end_ends_a_line_once() {
    assert_eq!(data("data: a\n\ndata: b\n\n"), ["a", "b"]);
    assert_eq!(data("data: a\r\rdata: b\r\r"), ["a", "b"]);
    assert_eq!(data("data: a\r\n\r\ndata: b\r\n\r\n"), ["a", "b"]);
    assert_eq!(data("data: a\r\n\ndata: b\r\r\n"), ["a", "b"], "ends may be mixed");
}

#[test]
fn one_space_after_the_colon_is_optional_and_a_second_one_is_data() {
    assert_eq!(data("data:a\n\ndata: a\n\ndata:  a\n\n"), ["a", "a", " a"]);
}

#[test]
fn data_lines_are_joined_by_line_feeds() {
    assert_eq!(data("data: a\ndata\ndata: b\n\n"), ["a\\\\n\\\\nb"]);
}

#[test]
fn a_field_without_a_colon_has_an_empty_value() {
    assert_eq!(data("data\n\n"), [""]);
    assert_eq!(data("data:\n\n"), [""]);
}

#[test]
fn comments_ids_and_retries_make_no_event() {
    assert_eq!(data(": hi\n\nid: 1\n\nretry: 5\n\nevent: x\n\n:\ndata: a\n: in between\n\n"), ["a"]);
}

#[test]
fn an_event_name_lasts_for_one_event_even_without_data() {
    let said = parse(b"event: x\n\ndata: a\n\nevent: y\ndata: b\n\ndata: c\n\n", &[64], 1024);
    let events: Vec<_> = said.iter().filter(|said| said.starts_with("event")).collect();
    assert_eq!(events, [r#"event "" "a""#, r#"event "y" "b""#, r#"event "" "c""#]);
}

#[test]
fn a_leading_mark_is_skipped_once_and_only_whole() {
    assert_eq!(data("\u{feff}data: a\n\n"), ["a"]);
    assert_eq!(data("\u{feff}\u{feff}data: a\n\n"), [""; 0], "a second mark is part of the field's name");
    assert_eq!(parse(b"\xEF\xBBdata: a\n\n", &[1], 99), [r#"unknown "\\xef\\xbbdata""#]);
}

#[test]
fn what_is_pending_at_the_end_is_discarded() {
    assert_eq!(data("data: a\n\ndata: b\n"), ["a"]);
    assert_eq!(data("data: a\n\ndata: b"), ["a"]);
}

#[test]
fn an_unknown_field_is_reported_by_its_name() {
    let said = parse(b"error: {\"code\":500}\n\n", &[3], 1024);
    assert_eq!(said, [r#"unknown "error""#]);
}

#[test]
fn the_offset_of_a_line_is_where_it_starts_in_its_chunk() {
    let mut parser = Parser::new(1024);
    let mut starts = Vec::new();
    for chunk in ["\u{feff}data: a\r", "\n\r\ndata: b\n", "\nda", "ta: c\n\n"] {
        parser
            .feed(chunk.as_bytes(), |item| {
                if let SseItem::Opens { data, at } = item {
                    starts.push((data.to_vec(), at));
                }
                ControlFlow::Continue(())
            })
            .unwrap();
    }
    assert_eq!(starts, [(b"a".to_vec(), 3), (b"b".to_vec(), 3), (b"c".to_vec(), 0)]);
}

#[test]
fn an_event_past_the_limit_is_refused_at_the_same_byte_however_it_is_cut() {
    let stream = b"data: 1234\ndata: 1234\n\ndata: 1234\ndata: 12345\n\n";
    for size in 1..stream.len() {
        let said = parse(stream, &[size], 20);
        assert_eq!(said.last().unwrap(), "too large", "chunks of {size}");
        assert_eq!(said.iter().filter(|said| said.starts_with("event")).count(), 1, "chunks of {size}");
    }
    assert_eq!(parse(b"data: 12345678901234", &[1], 19), ["too large"], "a line without an end counts");
}

#[test]
fn a_comment_of_any_length_is_no_event() {
    let stream = format!(":{}\n\ndata: a\n\n", "x".repeat(4096));
    assert_eq!(data(&stream), ["a"]);
    let mut parser = Parser::new(16);
    parser.feed(stream.as_bytes(), |_| ControlFlow::Continue(())).expect("comments do not count");
    assert_eq!(parser.line.capacity(), 0, "a comment is not kept");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_chunking_gives_the_same_events(
        lines in prop::collection::vec(
            prop::sample::select(vec![
                "\n", "\r", "\r\n", "\n\n", "data: x", "data:", "data", ":c", "event: e", "id: 1", "odd: 1", " ",
                "\u{feff}", "error", "data: \u{1f600}",
            ]),
            0..40,
        ),
        sizes in prop::collection::vec(1usize..9, 1..20),
        limit in 0usize..40,
    ) {
        let stream = lines.concat();
        let whole = parse(stream.as_bytes(), &[usize::MAX / 2], limit);
        prop_assert_eq!(parse(stream.as_bytes(), &sizes, limit), whole);
    }
}
