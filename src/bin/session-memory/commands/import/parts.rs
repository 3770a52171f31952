//! Message content: a string, or a list of parts in any of the shapes that LangChain and the Agents SDK keep.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    json::{Object, array, elements, in_string, is_string, quoted, string},
    report::Why,
};

/// What content became.
#[derive(Default)]
pub(super) struct Content {
    parts: Vec<String>,
    /// Whether each part is text, whose literal stands here as it was in the source.
    texts: Vec<Option<String>>,
    whole: Option<String>,
    pub(super) refusal: Option<String>,
    pub(super) calls: Vec<Call>,
    pub(super) left: Vec<Why>,
}

/// A tool call as Chat Completions has it.
pub(super) struct Call {
    pub(super) id: String,
    pub(super) json: String,
}

/// A part of any of the known shapes.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Part<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    text: Option<&'a RawValue>,
    refusal: Option<&'a RawValue>,
    image_url: Option<&'a RawValue>,
    detail: Option<&'a RawValue>,
    input_audio: Option<&'a RawValue>,
    file: Option<&'a RawValue>,
    file_id: Option<&'a RawValue>,
    file_data: Option<&'a RawValue>,
    filename: Option<&'a RawValue>,
    source: Option<&'a RawValue>,
    source_type: Option<&'a RawValue>,
    url: Option<&'a RawValue>,
    data: Option<&'a RawValue>,
    base64: Option<&'a RawValue>,
    mime_type: Option<&'a RawValue>,
    media_type: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
    call_id: Option<&'a RawValue>,
    name: Option<&'a RawValue>,
    input: Option<&'a RawValue>,
    args: Option<&'a RawValue>,
    arguments: Option<&'a RawValue>,
    cache_control: Option<&'a RawValue>,
}

/// Reads content. What cannot be taken over is named in `left`; the rest stands.
pub(super) fn content(value: Option<&RawValue>) -> Content {
    let mut content = Content::default();
    match value {
        Some(value) if is_string(value) => content.whole = Some(value.get().to_owned()),
        Some(value) => match elements(Some(value)) {
            Some(parts) => parts.into_iter().for_each(|part| content.take(part)),
            None if value.get() == "null" => {}
            None => content.left.push(Why::Part("content".to_owned())),
        },
        None => {}
    }
    content
}

impl Content {
    /// As an assistant's: `null` if there is none, a string where it is one text.
    pub(super) fn for_reply(&self) -> String {
        match (&self.whole, &self.texts[..]) {
            (Some(text), _) => text.clone(),
            (None, []) => "null".to_owned(),
            (None, [Some(text)]) => text.clone(),
            (None, _) => array(&self.parts),
        }
    }

    /// As anybody else's.
    pub(super) fn for_request(&self) -> String {
        match &self.whole {
            Some(text) => text.clone(),
            None if self.parts.is_empty() => "\"\"".to_owned(),
            None => array(&self.parts),
        }
    }

    /// As a tool's result, which takes only text.
    pub(super) fn for_result(mut self) -> (String, Vec<Why>) {
        if let Some(text) = self.whole {
            return (text, self.left);
        }
        let texts: Vec<String> = self.texts.iter().flatten().map(|text| text_part(text, None)).collect();
        let others = self.texts.iter().filter(|text| text.is_none());
        self.left.extend(others.map(|_| Why::Part("media in a tool result".to_owned())));
        let json = match &texts[..] {
            [] => "\"\"".to_owned(),
            [_] => self.texts.iter().flatten().next().cloned().unwrap_or_default(),
            _ => array(&texts),
        };
        (json, self.left)
    }

    /// Whether nothing is said.
    pub(super) fn is_empty(&self) -> bool {
        match &self.whole {
            Some(text) => text == "\"\"",
            None => self.texts.iter().all(|text| text.as_deref() == Some("\"\"")),
        }
    }

    fn take(&mut self, raw: &RawValue) {
        if is_string(raw) {
            return self.text(raw, None);
        }
        let Ok(part) = serde_json::from_str::<Part<'_>>(raw.get()) else {
            return self.left.push(Why::Part("unknown".to_owned()));
        };
        let kind = string(part.kind).unwrap_or_default();
        let taken = match kind.as_str() {
            "text" | "input_text" | "output_text" | "text-plain" | "summary_text" => {
                part.text.filter(|text| is_string(text)).map(|text| self.text(text, part.cache_control))
            }
            "refusal" => part.refusal.map(|refusal| self.refusal = Some(refusal.get().to_owned())),
            "image_url" | "input_image" | "image" => part.image().map(|image| self.part(image)),
            "input_audio" | "audio" => part.audio().map(|audio| self.part(audio)),
            "file" | "input_file" | "document" => part.file().map(|file| self.part(file)),
            "tool_use" | "tool_call" | "function_call" => part.call().map(|call| self.calls.push(call)),
            "thinking" | "redacted_thinking" | "reasoning" | "reasoning_content" => {
                self.left.push(Why::Reasoning);
                Some(())
            }
            _ => None,
        };
        if taken.is_none() {
            self.left.push(Why::Part(kind));
        }
    }

    fn text(&mut self, text: &RawValue, cache_control: Option<&RawValue>) {
        self.parts.push(text_part(text.get(), cache_control));
        self.texts.push(Some(text.get().to_owned()));
    }

    fn part(&mut self, json: String) {
        self.parts.push(json);
        self.texts.push(None);
    }
}

fn text_part(text: &str, cache_control: Option<&RawValue>) -> String {
    Object::new().text("type", "text").raw("text", text).maybe("cache_control", cache_control).end()
}

impl Part<'_> {
    /// `image_url` as Chat Completions has it, from there, from a URL beside it, or from bytes in base64.
    fn image(&self) -> Option<String> {
        let url = match self.image_url {
            Some(image) if !is_string(image) => image.get().to_owned(),
            image => {
                let url = string(image).or_else(|| self.location())?;
                Object::new().text("url", &url).maybe("detail", self.detail).end()
            }
        };
        let part = Object::new().text("type", "image_url").raw("image_url", &url);
        Some(part.maybe("cache_control", self.cache_control).end())
    }

    fn audio(&self) -> Option<String> {
        let audio = match self.input_audio {
            Some(audio) => audio.get().to_owned(),
            None => {
                let (mime, data) = self.bytes()?;
                let format = match mime.rsplit('/').next()? {
                    "mpeg" => "mp3".to_owned(),
                    other => other.trim_start_matches("x-").to_owned(),
                };
                Object::new().text("data", &data).text("format", &format).end()
            }
        };
        Some(Object::new().text("type", "input_audio").raw("input_audio", &audio).end())
    }

    fn file(&self) -> Option<String> {
        let file = match (self.file, self.file_id, self.file_data) {
            (Some(file), _, _) => file.get().to_owned(),
            (None, Some(id), _) if is_string(id) => Object::new().raw("file_id", id.get()).end(),
            (None, _, Some(data)) if is_string(data) => {
                Object::new().raw("file_data", data.get()).maybe("filename", self.filename).end()
            }
            _ => {
                let (mime, data) = self.bytes()?;
                let data = format!("data:{mime};base64,{data}");
                Object::new().text("file_data", &data).maybe("filename", self.filename).end()
            }
        };
        Some(Object::new().text("type", "file").raw("file", &file).end())
    }

    /// A URL, or a `data:` URL of the bytes.
    fn location(&self) -> Option<String> {
        let of_source = || self.inner().and_then(|inner| string(inner.url));
        string(self.url)
            .or_else(of_source)
            .or_else(|| self.bytes().map(|(mime, data)| format!("data:{mime};base64,{data}")))
    }

    /// The type and the base64 of what stands inside.
    fn bytes(&self) -> Option<(String, String)> {
        if let Some(inner) = self.inner() {
            return Some((string(inner.media_type)?, string(inner.data)?));
        }
        let data = string(self.base64).or_else(|| {
            let is_base64 = string(self.source_type).is_none_or(|kind| kind == "base64");
            is_base64.then(|| string(self.data)).flatten()
        })?;
        Some((string(self.mime_type)?, data))
    }

    /// Anthropic's `source`.
    fn inner(&self) -> Option<Part<'_>> {
        super::json::read(self.source)
    }

    fn call(&self) -> Option<Call> {
        let id = string(self.call_id).or_else(|| string(self.id)).filter(|id| !id.is_empty())?;
        let arguments = match self.arguments {
            Some(arguments) if is_string(arguments) => arguments.get().to_owned(),
            arguments => arguments.or(self.args).or(self.input).map_or_else(|| quoted("{}"), in_string),
        };
        Some(Call::new(id, &string(self.name)?, &arguments))
    }
}

impl Call {
    /// A function call; its arguments are a string literal.
    pub(super) fn new(id: String, name: &str, arguments: &str) -> Self {
        let function = Object::new().text("name", name).raw("arguments", arguments).end();
        let json = Object::new().text("id", &id).text("type", "function").raw("function", &function).end();
        Self { id, json }
    }
}
