use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What the upstream answers: a head, and a script for the body.
///
/// Without a `content-length` header the body goes out chunked; every [`Step::Send`] is a chunk.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// What is done after the head, in order. The body ends after the last step.
    pub steps: Vec<Step>,
    /// What is done before the head. A [`Step::Cut`] here closes the connection without an answer.
    pub before: Vec<Step>,
}

/// One step of a reply.
#[derive(Debug, Clone)]
pub enum Step {
    /// Sends these bytes.
    Send(Bytes),
    /// Does nothing for this long.
    Pause(Duration),
    /// Does nothing until the gate is opened.
    WaitFor(Gate),
    /// Opens a gate: tells a test that the script has come this far.
    Open(Gate),
    /// Breaks the connection off, without an end.
    Cut,
    /// Keeps the connection open for ever, without an end.
    Hold,
}

/// Something that a script can wait for. Clones are the same gate; once open it stays open.
#[derive(Debug, Clone, Default)]
pub struct Gate(CancellationToken);

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens it.
    pub fn open(&self) {
        self.0.cancel();
    }

    /// Returns when it is open.
    pub async fn opened(&self) {
        self.0.cancelled().await;
    }
}

/// One `chat.completion.chunk`, as JSON text; see [`Reply::chunks`].
#[derive(Debug, Clone)]
pub struct Chunk(Value);

impl Chunk {
    /// A chunk whose choice 0 carries this delta.
    #[must_use]
    pub fn delta(delta: &Value) -> Self {
        Self::with_choices(&json!([{"index": 0, "delta": delta, "finish_reason": null}]))
    }

    /// The chunk that ends choice 0.
    #[must_use]
    pub fn finish(reason: &str) -> Self {
        Self::with_choices(&json!([{"index": 0, "delta": {}, "finish_reason": reason}]))
    }

    /// The chunk that tells the usage: no choices.
    #[must_use]
    pub fn usage() -> Self {
        let mut chunk = Self::with_choices(&json!([]));
        chunk.0["usage"] = usage();
        chunk
    }

    /// A chunk with these choices.
    #[must_use]
    pub fn with_choices(choices: &Value) -> Self {
        Self(json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "scripted",
            "choices": choices,
        }))
    }

    /// The chunk as a server-sent event.
    #[must_use]
    pub fn event(&self) -> Bytes {
        format!("data: {}\n\n", self.0).into()
    }
}

impl Reply {
    /// A reply with a JSON body and its `content-length`.
    #[must_use]
    pub fn json(status: StatusCode, body: &Value) -> Self {
        let body = Bytes::from(body.to_string());
        Self::new(status)
            .with_header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .with_header(header::CONTENT_LENGTH, HeaderValue::from(body.len()))
            .then(Step::Send(body))
    }

    /// A chat completion with this assistant message, as JSON.
    #[must_use]
    pub fn message(message: &Value) -> Self {
        let reason = if message.get("tool_calls").is_some() { "tool_calls" } else { "stop" };
        let choices = json!([{"index": 0, "message": message, "finish_reason": reason}]);
        Self::json(StatusCode::OK, &completion(&choices))
    }

    /// A chat completion that says this, as JSON.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::message(&json!({"role": "assistant", "content": text}))
    }

    /// A chat completion that calls one tool, as JSON. `arguments` is JSON text.
    #[must_use]
    pub fn tool_call(id: &str, name: &str, arguments: &str) -> Self {
        Self::message(
            &json!({"role": "assistant", "content": null, "tool_calls": [tool_call(id, name, arguments)]}),
        )
    }

    /// A stream that says this word by word, with `finish_reason` and `[DONE]`.
    #[must_use]
    pub fn stream(text: &str) -> Self {
        Self::chunks(text_chunks(text)).done()
    }

    /// A stream that calls one tool, its arguments in two pieces, with `finish_reason` and `[DONE]`.
    #[must_use]
    pub fn stream_tool_call(id: &str, name: &str, arguments: &str) -> Self {
        let (mut call, at) = (tool_call(id, name, ""), arguments.len() / 2);
        let at = (at..=arguments.len()).find(|&at| arguments.is_char_boundary(at)).unwrap_or(0);
        call["index"] = json!(0);
        let piece =
            |text| Chunk::delta(&json!({"tool_calls": [{"index": 0, "function": {"arguments": text}}]}));
        Self::chunks([
            Chunk::delta(&json!({"role": "assistant", "content": null, "tool_calls": [call]})),
            piece(&arguments[..at]),
            piece(&arguments[at..]),
            Chunk::finish("tool_calls"),
        ])
        .done()
    }

    /// A stream of these chunks, each its own event, without `[DONE]`.
    #[must_use]
    pub fn chunks(chunks: impl IntoIterator<Item = Chunk>) -> Self {
        chunks.into_iter().fold(Self::event_stream(), |reply, chunk| reply.then(Step::Send(chunk.event())))
    }

    /// The head of a stream, and nothing yet.
    #[must_use]
    pub fn event_stream() -> Self {
        Self::new(StatusCode::OK)
            .with_header(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"))
    }

    /// An error in the shape of the API.
    #[must_use]
    pub fn error(status: StatusCode, message: &str) -> Self {
        let kind = if status.is_server_error() { "server_error" } else { "invalid_request_error" };
        let error = json!({"error": {"message": message, "type": kind, "param": null, "code": null}});
        Self::json(status, &error)
    }

    /// No answer at all: the connection is closed.
    #[must_use]
    pub fn none() -> Self {
        Self { before: vec![Step::Cut], ..Self::new(StatusCode::OK) }
    }

    /// A status with neither headers nor body.
    #[must_use]
    pub fn new(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), steps: Vec::new(), before: Vec::new() }
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    /// Adds a step.
    #[must_use]
    pub fn then(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Adds `data: [DONE]`.
    #[must_use]
    pub fn done(self) -> Self {
        self.then(Step::Send(Bytes::from_static(b"data: [DONE]\n\n")))
    }

    /// Keeps the connection open after the last step, instead of ending the body.
    #[must_use]
    pub fn held_open(self) -> Self {
        self.then(Step::Hold)
    }

    /// Adds a step before the head.
    #[must_use]
    pub fn after(mut self, step: Step) -> Self {
        self.before.push(step);
        self
    }

    /// The scripted body as one piece, when nothing waits or breaks in it.
    #[must_use]
    pub fn body(&self) -> Bytes {
        let sent = self.steps.iter().filter_map(|step| match step {
            Step::Send(bytes) => Some(bytes.as_ref()),
            _ => None,
        });
        sent.collect::<Vec<_>>().concat().into()
    }

    pub(super) async fn into_response(
        self,
        ended: impl FnOnce(bool) + Send + 'static,
    ) -> Result<Response<Script>, BoxError> {
        let mut before = Script::new(self.before, |_| {});
        std::future::poll_fn(|cx| Pin::new(&mut before).poll_frame(cx)).await.transpose()?;
        let mut response = Response::new(Script::new(self.steps, ended));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        Ok(response)
    }
}

/// The body that plays a reply's steps.
pub(super) struct Script {
    steps: VecDeque<Step>,
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    cut: bool,
    whole: bool,
    ended: Option<Box<dyn FnOnce(bool) + Send>>,
}

impl Script {
    fn new(steps: Vec<Step>, ended: impl FnOnce(bool) + Send + 'static) -> Self {
        let whole = steps.is_empty();
        Self { steps: steps.into(), waiting: None, cut: false, whole, ended: Some(Box::new(ended)) }
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            if let Some(waiting) = &mut self.waiting {
                ready!(waiting.as_mut().poll(cx));
                self.waiting = None;
            }
            if self.cut {
                self.whole = true;
                return Poll::Ready(Some(Err(CutOff.into())));
            }
            let step = self.steps.pop_front();
            self.whole |= self.steps.is_empty() && matches!(step, None | Some(Step::Send(_)));
            match step {
                None => return Poll::Ready(None),
                Some(Step::Send(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Some(Step::Pause(time)) => self.waiting = Some(Box::pin(tokio::time::sleep(time))),
                Some(Step::WaitFor(gate)) => {
                    self.waiting = Some(Box::pin(async move { gate.opened().await }))
                }
                Some(Step::Open(gate)) => gate.open(),
                Some(Step::Hold) => self.waiting = Some(Box::pin(std::future::pending())),
                Some(Step::Cut) => {
                    // hyper flushes what it has when a body is pending, and forgets it when a body fails.
                    self.cut = true;
                    self.waiting = Some(Box::pin(tokio::task::yield_now()));
                }
            }
        }
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        if let Some(ended) = self.ended.take() {
            ended(self.whole);
        }
    }
}

#[derive(Debug)]
struct CutOff;

impl fmt::Display for CutOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the script cuts the reply off")
    }
}

impl std::error::Error for CutOff {}

/// Role, one delta a word, and the finish.
pub(super) fn text_chunks(text: &str) -> Vec<Chunk> {
    let mut chunks = vec![Chunk::delta(&json!({"role": "assistant", "content": ""}))];
    chunks.extend(text.split_inclusive(' ').map(|word| Chunk::delta(&json!({"content": word}))));
    chunks.push(Chunk::finish("stop"));
    chunks
}

fn completion(choices: &Value) -> Value {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "scripted",
        "choices": choices, "usage": usage(),
    })
}

fn usage() -> Value {
    json!({"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2})
}

fn tool_call(id: &str, name: &str, arguments: &str) -> Value {
    json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
}
