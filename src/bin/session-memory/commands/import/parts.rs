//! Message content: a string, or a list of parts in any of the shapes of LangChain and the Agents SDK.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    chat::{Call, FileContent, ImageUrl, InputAudio, Json, Part, json},
    json::{elements, given, is_string, read, string},
    report::Why,
};

/// Content in the form of Chat Completions, and what comes with it.
#[derive(Default)]
pub(super) struct Content {
    parts: Vec<Json>,
    /// The text of each part, byte for byte; `None` for a part that is no text.
    texts: Vec<Option<Json>>,
    /// Content that is one string.
    whole: Option<Json>,
    pub(super) refusal: Option<Json>,
    pub(super) calls: Vec<Call>,
    pub(super) left: Vec<Why>,
}

/// A part of any of the known shapes.
#[derive(Deserialize, Default)]
#[serde(default)]
struct SourcePart<'a> {
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

/// Reads content. Parts that cannot be imported are named in `left`.
pub(super) fn content(value: Option<&RawValue>) -> Content {
    let mut content = Content::default();
    match value {
        Some(value) if is_string(value) => content.whole = Some(value.to_owned()),
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
    /// Content of a reply: a string where it is one text, `None` where it says nothing.
    pub(super) fn for_reply(&self) -> Option<Json> {
        if self.is_empty() {
            return None;
        }
        Some(match (&self.whole, &self.texts[..]) {
            (Some(text), _) | (None, [Some(text)]) => text.clone(),
            (None, _) => json(&self.parts),
        })
    }

    /// Content of a message of any other role.
    pub(super) fn for_request(&self) -> Json {
        match &self.whole {
            Some(text) => text.clone(),
            None if self.parts.is_empty() => json(""),
            None => json(&self.parts),
        }
    }

    /// Content of a tool's result, which takes only text.
    pub(super) fn for_result(mut self) -> (Json, Vec<Why>) {
        if let Some(text) = self.whole {
            return (text, self.left);
        }
        let others = self.texts.iter().filter(|text| text.is_none());
        self.left.extend(others.map(|_| Why::Part("media in a tool result".to_owned())));
        let texts: Vec<&Json> = self.texts.iter().flatten().collect();
        let json = match texts[..] {
            [] => json(""),
            [text] => text.clone(),
            _ => json(texts.iter().map(|text| Part::Text { text, cache_control: None }).collect::<Vec<_>>()),
        };
        (json, self.left)
    }

    /// Whether the content says nothing.
    pub(super) fn is_empty(&self) -> bool {
        let is_blank = |text: &Json| text.get() == "\"\"";
        match &self.whole {
            Some(text) => is_blank(text),
            None => self.texts.iter().all(|text| text.as_ref().is_some_and(is_blank)),
        }
    }

    fn take(&mut self, raw: &RawValue) {
        if is_string(raw) {
            return self.text(raw, None);
        }
        let Ok(part) = serde_json::from_str::<SourcePart<'_>>(raw.get()) else {
            return self.left.push(Why::Part("unknown".to_owned()));
        };
        let kind = string(part.kind).unwrap_or_default();
        let taken = match kind.as_str() {
            "text" | "input_text" | "output_text" | "text-plain" | "summary_text" => {
                part.text.filter(|text| is_string(text)).map(|text| self.text(text, part.cache_control))
            }
            "refusal" => part.refusal.map(|refusal| self.refusal = Some(refusal.to_owned())),
            "image_url" | "input_image" | "image" => part.image().map(|image| self.part(&image)),
            "input_audio" | "audio" => {
                part.audio().map(|input_audio| self.part(&Part::InputAudio { input_audio }))
            }
            "file" | "input_file" | "document" => part.file().map(|file| self.part(&Part::File { file })),
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
        self.parts.push(json(Part::Text { text, cache_control: given(cache_control) }));
        self.texts.push(Some(text.to_owned()));
    }

    fn part(&mut self, part: &Part<'_>) {
        self.parts.push(json(part));
        self.texts.push(None);
    }
}

impl SourcePart<'_> {
    /// An image: as Chat Completions has it, from a URL beside it, or from bytes in base64.
    fn image(&self) -> Option<Part<'_>> {
        let image_url = match self.image_url {
            Some(image) if !is_string(image) => image.to_owned(),
            image => {
                let url = string(image).or_else(|| self.location())?;
                json(ImageUrl { url: &url, detail: given(self.detail) })
            }
        };
        Some(Part::ImageUrl { image_url, cache_control: given(self.cache_control) })
    }

    fn audio(&self) -> Option<Json> {
        if let Some(audio) = self.input_audio {
            return Some(audio.to_owned());
        }
        let (mime, data) = self.bytes()?;
        let format = match mime.rsplit('/').next()? {
            "mpeg" => "mp3",
            other => other.trim_start_matches("x-"),
        };
        Some(json(InputAudio { data: &data, format }))
    }

    fn file(&self) -> Option<Json> {
        let file = match (self.file, self.file_id, self.file_data) {
            (Some(file), _, _) => return Some(file.to_owned()),
            (None, file_id @ Some(id), _) if is_string(id) => {
                FileContent { file_id, ..FileContent::default() }
            }
            (None, _, file_data @ Some(data)) if is_string(data) => {
                FileContent { file_data, filename: given(self.filename), ..FileContent::default() }
            }
            _ => {
                let (mime, data) = self.bytes()?;
                let data = json(format!("data:{mime};base64,{data}"));
                return Some(json(FileContent {
                    file_data: Some(&data),
                    filename: given(self.filename),
                    file_id: None,
                }));
            }
        };
        Some(json(file))
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
    fn inner(&self) -> Option<SourcePart<'_>> {
        read(self.source)
    }

    fn call(&self) -> Option<Call> {
        let id = string(self.call_id).or_else(|| string(self.id)).filter(|id| !id.is_empty())?;
        let arguments = match self.arguments {
            Some(arguments) if is_string(arguments) => arguments.to_owned(),
            arguments => json(arguments.or(self.args).or(self.input).map_or("{}", RawValue::get)),
        };
        Some(Call::function(id, &string(self.name)?, &arguments))
    }
}
