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

use std::sync::Arc;

use baton_proto::v1::SamplingParams;
use baton_tenancy::{Call, Tenant};
use http::HeaderMap;
use serde_json::{Map, Value};

pub(crate) use chat::{parse_chat, take_chat_prompt};
pub(crate) use completion::parse_completion;
pub(crate) use format::OutputFormat;
pub(crate) use sampling::choice_seed;
pub(crate) use tools::{Function, ToolUse};

use crate::{
    App, Owner,
    api_error::ApiError,
    completion::TextOptions,
    fields::{Fields, InvalidField},
};

/// Each cached block of a request keeps its salt.
const MOST_SALT_BYTES: usize = 1_024;

/// One request of either path.
#[derive(Clone, Debug)]
pub(crate) struct GenerateJob {
    /// The adapter that the client asked for in place of the model.
    pub(crate) adapter: Option<String>,
    /// It shares cached prefixes only with requests that have the same. Never logged or shown: who knows it can tell by the time that
    /// an answer takes what others asked.
    pub(crate) cache_salt: Option<String>,
    /// Never empty.
    pub(crate) prompts: Vec<PromptSource>,
    /// Completions of each prompt; at least 1.
    pub(crate) n: u32,
    /// `max_tokens` is decided when the prompt's length is known.
    pub(crate) sampling: SamplingParams,
    pub(crate) max_tokens: MaxTokens,
    pub(crate) text: TextOptions,
    /// What the output must be; `None`: anything.
    pub(crate) format: Option<OutputFormat>,
    /// Chat only.
    pub(crate) tools: ToolUse,
    /// Reasoning is left out of the answer.
    pub(crate) hide_reasoning: bool,
    /// Most likely tokens to show beside each chosen one; `None`: no logprobs.
    pub(crate) logprobs: Option<u32>,
    /// Completions only: the answer begins with the prompt.
    pub(crate) echo: bool,
    pub(crate) stream: Option<StreamOptions>,
    /// What the client said beside the body, for whoever generates.
    pub(crate) headers: Arc<HeaderMap>,
    /// Whose it is, where tenants are known.
    pub(crate) owner: Option<Owner>,
}

/// A prompt before it is encoded.
#[derive(Clone, Debug)]
pub(crate) enum PromptSource {
    Text { text: String, add_special: bool },
    Tokens(Vec<u32>),
    Chat(ChatPrompt),
}

/// A conversation.
#[derive(Clone, Debug)]
pub(crate) struct ChatPrompt {
    pub(crate) messages: Vec<Value>,
    pub(crate) tools: ToolUse,
    pub(crate) add_generation_prompt: bool,
    pub(crate) kwargs: Map<String, Value>,
    pub(crate) add_special: bool,
}

/// How long a completion may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MaxTokens {
    /// The client's word: a request that has no room for it is refused.
    Asked { tokens: u32, param: &'static str },
    /// As OpenAI's completions: this many, or what is left of the context.
    Default(u32),
    /// As OpenAI's chat: what is left of the context.
    Rest,
}

/// How a stream is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StreamOptions {
    pub(crate) include_usage: bool,
    pub(crate) continuous_usage: bool,
}

/// Limits that parsing needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ParseLimits {
    pub(crate) vocab_size: u32,
    pub(crate) max_choices: u32,
}

impl GenerateJob {
    /// Completions asked for in all.
    pub(crate) fn choices(&self) -> u32 {
        u32::try_from(self.prompts.len()).unwrap_or(u32::MAX).saturating_mul(self.n)
    }
}

/// The model that is asked for, which the caller may use; a request without one is for the model that is served here.
pub(crate) fn take_model(fields: &mut Fields, app: &App, call: &mut Call) -> Result<String, ApiError> {
    let asked = fields.string("model")?.unwrap_or_else(|| app.config.shown_name().to_owned());
    // Before it is looked for: who may not use it need not know whether it exists.
    call.model(&asked)?;
    Ok(asked)
}

/// `asked` must be served here, by one of its names or as an adapter, whose name is returned.
pub(crate) fn adapter(app: &App, tenant: &Tenant, asked: &str) -> Result<Option<String>, ApiError> {
    if app.config.served_model_names.iter().any(|name| name == asked) {
        return Ok(None);
    }
    let adapters = app.generator.adapters();
    let found = adapters.into_iter().find(|adapter| adapter.name == asked);
    found.map(|adapter| Some(adapter.name)).ok_or_else(|| model_not_found(app, tenant, asked))
}

/// With the names of all that `tenant` may use.
pub(crate) fn model_not_found(app: &App, tenant: &Tenant, asked: &str) -> ApiError {
    let adapters = app.generator.adapters().into_iter().map(|adapter| adapter.name);
    let elsewhere = app.edge.upstreams.models().map(|(name, _)| name.to_owned());
    let names = app.config.served_model_names.iter().cloned().chain(adapters).chain(elsewhere);
    ApiError::model_not_found(asked, &names.filter(|name| tenant.may_use(name)).collect::<Vec<_>>())
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
