//! The formats by name.

use std::{fmt, str::FromStr};

use serde::Serialize;

use crate::marks;

/// How a model writes tool calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolFormat {
    /// `<tool_call>{"name": …, "arguments": …}</tool_call>`: Hermes, Qwen.
    Hermes,
    /// `<tool_call><function=…><parameter=…>…`: Qwen3-Coder, Qwen3.5.
    #[serde(rename = "qwen3_coder")]
    Qwen3Coder,
    /// `{"name": …, "parameters": …}`: Llama 3.
    Llama3Json,
    /// `[TOOL_CALLS]`: Mistral.
    Mistral,
    /// Channels: gpt-oss.
    Harmony,
}

/// How a model marks its reasoning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasoningFormat {
    /// `<think>…</think>`: Qwen3, DeepSeek-R1.
    Think,
    /// Channels: gpt-oss.
    Harmony,
}

/// What a model writes, as far as it matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Formats {
    /// How it calls tools; `None`: its text is never taken for a call.
    pub tools: Option<ToolFormat>,
    /// How it reasons; `None`: all of its text is content.
    pub reasoning: Option<ReasoningFormat>,
}

/// No format has that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownFormat(&'static str);

impl Formats {
    /// Marks that have to be seen as text even when they are control tokens.
    pub fn marks(&self) -> Vec<&'static str> {
        let tools: &[&str] = match self.tools {
            None => &[],
            Some(ToolFormat::Hermes | ToolFormat::Qwen3Coder) => {
                &[marks::TOOL_CALL_OPEN, marks::TOOL_CALL_CLOSE]
            }
            Some(ToolFormat::Llama3Json) => &[marks::PYTHON_TAG],
            Some(ToolFormat::Mistral) => &[marks::TOOL_CALLS, marks::ARGS, marks::CALL_ID],
            Some(ToolFormat::Harmony) => &HARMONY,
        };
        let reasoning: &[&str] = match self.reasoning {
            None => &[],
            Some(ReasoningFormat::Think) => &[marks::THINK_OPEN, marks::THINK_CLOSE],
            Some(ReasoningFormat::Harmony) => &HARMONY,
        };
        [tools, reasoning].concat()
    }

    /// Whether the model writes channels, which are taken apart whatever the request.
    pub fn is_harmony(&self) -> bool {
        self.tools == Some(ToolFormat::Harmony) || self.reasoning == Some(ReasoningFormat::Harmony)
    }
}

const HARMONY: [&str; 7] =
    [marks::START, marks::CHANNEL, marks::CONSTRAIN, marks::MESSAGE, marks::END, marks::CALL, marks::RETURN];

impl FromStr for ToolFormat {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        match name {
            "hermes" => Ok(Self::Hermes),
            "qwen3_coder" => Ok(Self::Qwen3Coder),
            "llama3_json" => Ok(Self::Llama3Json),
            "mistral" => Ok(Self::Mistral),
            "harmony" => Ok(Self::Harmony),
            _ => Err(UnknownFormat("hermes, qwen3_coder, llama3_json, mistral or harmony")),
        }
    }
}

impl FromStr for ReasoningFormat {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        match name {
            "think" => Ok(Self::Think),
            "harmony" => Ok(Self::Harmony),
            _ => Err(UnknownFormat("think or harmony")),
        }
    }
}

impl fmt::Display for UnknownFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "use auto, none, {}", self.0)
    }
}

impl std::error::Error for UnknownFormat {}
