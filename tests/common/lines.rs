//! A second, small format, so that the seam of formats has a user other than Chat Completions.
//!
//! ```text
//! POST /lines  {"talk":"session id","lines":["#Be brief.","?What is up?"]}
//!          →   {"said":["=Not much.","=And you?"],"end":"done"}
//!          or  data: "=Not much."⏎⏎ data: "=And you?"⏎⏎ data: done⏎⏎
//! ```
//!
//! A line is a JSON string. Its first character says what it is: `#` an instruction, `?` a question, `=` an answer,
//! `@a` a call with the id `a`, `!a,b` a result for the calls `a` and `b`. There are no roles, the session stands in the
//! body, a reply has as many lines as it likes, and an error is `{"oops":"code: text"}`.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(unreachable_pub, missing_docs, reason = "a test binary exports nothing")]

use std::ops::ControlFlow;

use bytes::Bytes;
use http::{Method, request::Parts};
use serde::Deserialize;
use serde_json::value::RawValue;
use tower_session_memory::{
    history::{About, Author, Canonical, Format, Item},
    protocol::{
        Draft, ErrorBody, Insertion, Protocol, Recorder, Reply, ReplyKind, ReplyLimits, Route, Skip,
        Uneditable, sse,
    },
};

/// The format. `understands_chat` makes it translate Chat Completions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lines {
    pub understands_chat: bool,
}

pub const FORMAT: Format = Format::from_static("test.lines");

#[derive(Deserialize)]
struct Request<'a> {
    talk: Option<String>,
    #[serde(borrow)]
    lines: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    said: Vec<&'a RawValue>,
    end: String,
}

impl Protocol for Lines {
    fn format(&self) -> Format {
        FORMAT
    }

    fn route(&self, parts: &Parts) -> Route {
        match parts.method == Method::POST && parts.uri.path() == "/lines" {
            true => Route::ConverseByBody,
            false => Route::Foreign,
        }
    }

    fn read(&self, body: &Bytes) -> Result<Draft, Uneditable> {
        let Request { talk, lines } =
            serde_json::from_slice(body).map_err(|_| Uneditable::new("no_lines"))?;
        let lines: Option<Vec<Item>> =
            lines.into_iter().map(|line| self.item(body.slice_ref(line.get().as_bytes()))).collect();
        let mut instructions = lines.ok_or(Uneditable::new("no_lines"))?;
        let leading = instructions.iter().take_while(|line| line.author() == Author::Instruction).count();
        let items = instructions.split_off(leading);
        let first = items.first().ok_or(Uneditable::new("no_lines"))?;
        let insert_at = first.raw().as_ptr().addr() - body.as_ptr().addr();
        Ok(Draft::new(body.clone(), instructions, items, insert_at).with_session(talk))
    }

    fn edit(&self, draft: &Draft, insertion: &Insertion<'_>) -> Vec<Bytes> {
        let mut pieces = vec![draft.body.slice(..draft.insert_at)];
        for group in insertion.groups() {
            pieces.extend([group.clone(), Bytes::from_static(b",")]);
        }
        pieces.push(draft.body.slice(draft.insert_at..));
        pieces
    }

    fn recorder(&self, kind: ReplyKind, limits: ReplyLimits) -> Box<dyn Recorder> {
        match kind {
            ReplyKind::Json => Box::new(Listening { format: *self, heard: Vec::new() }),
            _ => {
                let parser = sse::Parser::new(limits.event);
                Box::new(Following { format: *self, parser, said: Vec::new(), done: false })
            }
        }
    }

    fn item(&self, raw: Bytes) -> Option<Item> {
        let line: String = serde_json::from_slice(&raw).ok()?;
        let rest = || line[1..].split(',').map(str::to_owned);
        let about = match line.as_bytes().first()? {
            b'#' => About::new(Author::Instruction),
            b'?' => About::new(Author::User),
            b'=' => About::new(Author::Model),
            b'@' => About::new(Author::Model).with_calls(rest()),
            b'!' => About::new(Author::Tool).with_answers(rest()),
            _ => return None,
        };
        Some(Item::new(raw, about))
    }

    fn canonical(&self, item: &Item) -> Canonical {
        let text: String = serde_json::from_slice(item.raw()).unwrap_or_default();
        let mut digest = [0; 16];
        for (at, byte) in text.trim_end().bytes().enumerate() {
            digest[at % 16] ^= byte.rotate_left(u32::try_from(at / 16).unwrap());
        }
        Canonical(digest)
    }

    fn translate(&self, item: &Item, from: Format) -> Option<Item> {
        if !self.understands_chat || from.as_str() != "openai.chat" {
            return None;
        }
        let message: serde_json::Value = serde_json::from_slice(item.raw()).ok()?;
        let sign = match item.author() {
            Author::Instruction => '#',
            Author::User => '?',
            Author::Model => '=',
            _ => return None,
        };
        let line = format!("{sign}{}", message["content"].as_str()?);
        self.item(Bytes::from(serde_json::to_vec(&line).ok()?))
    }

    fn error_body(&self, error: &ErrorBody<'_>) -> Bytes {
        serde_json::json!({"oops": format!("{}: {}", error.code, error.message)}).to_string().into()
    }
}

struct Listening {
    format: Lines,
    heard: Vec<u8>,
}

impl Recorder for Listening {
    fn feed(&mut self, bytes: &[u8]) -> Option<usize> {
        self.heard.extend_from_slice(bytes);
        self.is_finished().then(|| bytes.len() - 1)
    }

    fn is_finished(&self) -> bool {
        serde_json::from_slice::<Answer<'_>>(&self.heard).is_ok()
    }

    fn finish(&mut self) -> Result<Reply, Skip> {
        let Answer { said, end } = serde_json::from_slice(&self.heard).map_err(|_| Skip::Unparseable)?;
        let items =
            said.into_iter().map(|line| self.format.item(Bytes::copy_from_slice(line.get().as_bytes())));
        reply(items.collect::<Option<_>>().unwrap_or_default(), Some(end))
    }

    fn interrupt(&mut self) -> Result<Reply, Skip> {
        Err(Skip::NoFinishReason)
    }
}

/// The recorder of a stream: each event is a line, and the last says that it is done.
struct Following {
    format: Lines,
    parser: sse::Parser,
    said: Vec<Item>,
    done: bool,
}

impl Recorder for Following {
    fn feed(&mut self, bytes: &[u8]) -> Option<usize> {
        let Self { format, parser, said, done } = self;
        let mut terminal = None;
        let fed = parser.feed(bytes, |item| {
            match item {
                sse::SseItem::Opens { data: b"done", at } => {
                    *done = true;
                    terminal = Some(at);
                }
                sse::SseItem::Event { data, .. } => said.extend(format.item(Bytes::copy_from_slice(data))),
                _ => {}
            }
            ControlFlow::Continue(())
        });
        fed.unwrap();
        terminal
    }

    fn is_finished(&self) -> bool {
        self.done
    }

    fn finish(&mut self) -> Result<Reply, Skip> {
        if self.done { reply(self.said.clone(), Some("done".to_owned())) } else { Err(Skip::NoFinishReason) }
    }

    fn interrupt(&mut self) -> Result<Reply, Skip> {
        reply(self.said.clone(), None)
    }
}

fn reply(items: Vec<Item>, finish_reason: Option<String>) -> Result<Reply, Skip> {
    if items.is_empty() {
        return Err(Skip::EmptyMessage);
    }
    let mut reply = Reply::new(items);
    reply.id = Some("reply-1".to_owned());
    reply.finish_reason = finish_reason;
    Ok(reply)
}
