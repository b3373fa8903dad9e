//! Requests, parsed: what comes after trusts them.

mod chat;
mod completion;
mod format;
mod messages;
mod sampling;
#[cfg(test)]
mod tests;
mod tools;
mod unsupported;

use baton_proto::v1::SamplingParams;
use serde_json::{Map, Value};

pub(super) use chat::{parse_chat, take_chat_prompt};
pub(super) use completion::parse_completion;
pub(super) use format::OutputFormat;
pub(super) use sampling::choice_seed;
pub(super) use tools::{Function, ToolUse};

use super::{
    App,
    error::ApiError,
    fields::{Fields, InvalidField},
};
use crate::completion::TextOptions;

/// Each cached block of a request keeps its salt.
const MOST_SALT_BYTES: usize = 1_024;

/// One request of either path.
#[derive(Clone, Debug)]
pub(super) struct GenerateJob {
    /// The adapter that the client asked for in place of the model.
    pub(super) adapter: Option<String>,
    /// It shares cached prefixes only with requests that have the same. Never logged or shown: who knows it can tell by the time that
    /// an answer takes what others asked.
    pub(super) cache_salt: Option<String>,
    /// Never empty.
    pub(super) prompts: Vec<PromptSource>,
    /// Completions of each prompt; at least 1.
    pub(super) n: u32,
    /// `max_tokens` is decided when the prompt's length is known.
    pub(super) sampling: SamplingParams,
    pub(super) max_tokens: MaxTokens,
    pub(super) text: TextOptions,
    /// What the output must be; `None`: anything.
    pub(super) format: Option<OutputFormat>,
    /// Chat only.
    pub(super) tools: ToolUse,
    /// Reasoning is left out of the answer.
    pub(super) hide_reasoning: bool,
    /// Most likely tokens to show beside each chosen one; `None`: no logprobs.
    pub(super) logprobs: Option<u32>,
    /// Completions only: the answer begins with the prompt.
    pub(super) echo: bool,
    pub(super) stream: Option<StreamOptions>,
}

/// A prompt before it is encoded.
#[derive(Clone, Debug)]
pub(super) enum PromptSource {
    Text { text: String, add_special: bool },
    Tokens(Vec<u32>),
    Chat(ChatPrompt),
}

/// A conversation.
#[derive(Clone, Debug)]
pub(super) struct ChatPrompt {
    pub(super) messages: Vec<Value>,
    pub(super) tools: ToolUse,
    pub(super) add_generation_prompt: bool,
    pub(super) kwargs: Map<String, Value>,
    pub(super) add_special: bool,
}

/// How long a completion may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MaxTokens {
    /// The client's word: a request that has no room for it is refused.
    Asked { tokens: u32, param: &'static str },
    /// As OpenAI's completions: this many, or what is left of the context.
    Default(u32),
    /// As OpenAI's chat: what is left of the context.
    Rest,
}

/// How a stream is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StreamOptions {
    pub(super) include_usage: bool,
    pub(super) continuous_usage: bool,
}

/// Limits that parsing needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct ParseLimits {
    pub(super) vocab_size: u32,
    pub(super) max_choices: u32,
}

impl GenerateJob {
    /// Completions asked for in all.
    pub(super) fn choices(&self) -> u32 {
        u32::try_from(self.prompts.len()).unwrap_or(u32::MAX).saturating_mul(self.n)
    }
}

/// `model` must be one that is served, or one of its adapters, which is returned; a request without one is for the only model that
/// there is.
pub(super) fn take_model(fields: &mut Fields, app: &App) -> Result<Option<String>, ApiError> {
    let served = &app.config.served_model_names;
    let Some(asked) = fields.string("model")?.filter(|asked| !served.contains(asked)) else {
        return Ok(None);
    };
    if app.fleet.adapters().iter().any(|adapter| adapter.name == asked) {
        return Ok(Some(asked));
    }
    Err(model_not_found(app, &asked))
}

/// With the names of all that there is.
pub(super) fn model_not_found(app: &App, asked: &str) -> ApiError {
    let adapters = app.fleet.adapters().into_iter().map(|adapter| adapter.name);
    let names: Vec<String> = app.config.served_model_names.iter().cloned().chain(adapters).collect();
    ApiError::model_not_found(asked, &names)
}

fn take_stream(fields: &mut Fields) -> Result<Option<StreamOptions>, ApiError> {
    let is_stream = fields.boolean("stream")?.unwrap_or(false);
    let Some(options) = fields.object("stream_options")? else {
        return Ok(is_stream.then(StreamOptions::default));
    };
    if !is_stream {
        return Err(
            ApiError::invalid("stream_options: only allowed when stream is true").param("stream_options")
        );
    }
    let mut options = Fields(options);
    Ok(Some(StreamOptions {
        include_usage: options.boolean("include_usage")?.unwrap_or(false),
        continuous_usage: options.boolean("continuous_usage_stats")?.unwrap_or(false),
    }))
}

/// vLLM's field. What it is instead is not said, because refusals are logged.
fn take_cache_salt(fields: &mut Fields) -> Result<Option<String>, InvalidField> {
    match fields.take("cache_salt") {
        None => Ok(None),
        Some(Value::String(salt)) if (1..=MOST_SALT_BYTES).contains(&salt.len()) => Ok(Some(salt)),
        Some(_) => {
            Err(InvalidField::new("cache_salt", format!("expected a string of 1 to {MOST_SALT_BYTES} bytes")))
        }
    }
}

fn take_n(fields: &mut Fields, prompts: usize, limits: &ParseLimits) -> Result<u32, ApiError> {
    let n = fields.uint("n", 1..=limits.max_choices)?.unwrap_or(1);
    let prompts = u32::try_from(prompts).unwrap_or(u32::MAX);
    if prompts.saturating_mul(n) > limits.max_choices {
        let message = format!(
            "n: {n} completions of {prompts} prompts are more than the {} that one request may ask for",
            limits.max_choices
        );
        return Err(ApiError::invalid(message).param("n"));
    }
    Ok(n)
}
