//! Messages of Chat Completions, as the import writes them. Values of the source are copied byte for byte.

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

/// A JSON value, as text.
pub(super) type Json = Box<RawValue>;

/// A value as JSON. Writing into memory cannot fail, nor can a key that is no string occur.
pub(super) fn json(value: impl Serialize) -> Json {
    to_raw_value(&value).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// A message of any role.
#[derive(Serialize, Default)]
pub(super) struct Message<'a> {
    pub(super) role: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tool_call_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<&'a RawValue>,
    /// `null` if there is none.
    pub(super) content: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refusal: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reasoning_content: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) audio: Option<Audio<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) tool_calls: Vec<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) function_call: Option<&'a RawValue>,
}

impl Message<'_> {
    pub(super) fn into_json(self) -> String {
        Box::<str>::from(json(self)).into_string()
    }
}

/// A part of a message's content.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Part<'a> {
    Text {
        text: &'a RawValue,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<&'a RawValue>,
    },
    ImageUrl {
        image_url: Json,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<&'a RawValue>,
    },
    InputAudio {
        input_audio: Json,
    },
    File {
        file: Json,
    },
}

/// The image of a part.
#[derive(Serialize)]
pub(super) struct ImageUrl<'a> {
    pub(super) url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) detail: Option<&'a RawValue>,
}

/// The audio of a part.
#[derive(Serialize)]
pub(super) struct InputAudio<'a> {
    pub(super) data: &'a str,
    pub(super) format: &'a str,
}

/// The file of a part, by its id or with its bytes.
#[derive(Serialize, Default)]
pub(super) struct FileContent<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file_id: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file_data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) filename: Option<&'a RawValue>,
}

/// The audio of an earlier reply.
#[derive(Serialize)]
pub(super) struct Audio<'a> {
    pub(super) id: &'a RawValue,
}

/// A tool call, and its id.
pub(super) struct Call {
    pub(super) id: String,
    pub(super) json: Json,
}

#[derive(Serialize, Default)]
struct CallJson<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<Function<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    custom: Option<Custom<'a>>,
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    arguments: &'a RawValue,
}

#[derive(Serialize)]
struct Custom<'a> {
    name: &'a str,
    input: &'a RawValue,
}

impl Call {
    /// A call of a function; its arguments are a string literal.
    pub(super) fn function(id: String, name: &str, arguments: &RawValue) -> Self {
        let function = Some(Function { name, arguments });
        let json = json(CallJson { id: &id, kind: "function", function, custom: None });
        Self { id, json }
    }

    /// A call of a custom tool; its input is a string literal.
    pub(super) fn custom(id: String, name: &str, input: &RawValue) -> Self {
        let custom = Some(Custom { name, input });
        let json = json(CallJson { id: &id, kind: "custom", function: None, custom });
        Self { id, json }
    }
}
