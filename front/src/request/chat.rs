//! `/v1/chat/completions`.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{
    super::{
        api_error::ApiError,
        fields::{Fields, InvalidField},
    },
    ChatPrompt, GenerateJob, MaxTokens, ParseLimits, PromptSource,
    format::take_format,
    messages,
    sampling::{take_sampling, take_text},
    take_cache_salt, take_n, take_stream,
    tools::take_tools,
    unsupported::refuse_unsupported,
};

/// OpenAI's bound on `top_logprobs`.
const MOST_TOP_LOGPROBS: u32 = 20;

pub(crate) fn parse_chat(mut fields: Fields, limits: &ParseLimits) -> Result<GenerateJob, ApiError> {
    let prompt = take_chat_prompt(&mut fields)?;
    let tools = prompt.tools.clone();
    let n = take_n(&mut fields, 1, limits)?;
    refuse_unsupported(&mut fields, n)?;
    let sampling = take_sampling(&mut fields, limits.vocab_size)?;
    let text = take_text(&mut fields, &sampling)?;
    let format = take_format(&mut fields)?;
    Ok(GenerateJob {
        adapter: None,
        cache_salt: take_cache_salt(&mut fields)?,
        prompts: vec![PromptSource::Chat(prompt)],
        n,
        max_tokens: take_max_tokens(&mut fields)?,
        logprobs: take_logprobs(&mut fields)?,
        echo: false,
        stream: take_stream(&mut fields)?,
        headers: Arc::default(),
        owner: None,
        sampling,
        text,
        format,
        tools,
        hide_reasoning: !fields.boolean("include_reasoning")?.unwrap_or(true),
    })
}

/// The conversation; `/tokenize` takes one too.
pub(crate) fn take_chat_prompt(fields: &mut Fields) -> Result<ChatPrompt, ApiError> {
    let Some(given) = fields.array("messages")? else {
        return Err(InvalidField::new("messages", "expected an array of messages, got nothing").into());
    };
    Ok(ChatPrompt {
        messages: messages::normalise(given)?,
        tools: take_tools(fields)?,
        add_generation_prompt: fields.boolean("add_generation_prompt")?.unwrap_or(true),
        kwargs: take_kwargs(fields)?,
        add_special: fields.boolean("add_special_tokens")?.unwrap_or(false),
    })
}

/// OpenAI's `reasoning_effort` is a variable of the templates that know it.
fn take_kwargs(fields: &mut Fields) -> Result<Map<String, Value>, InvalidField> {
    let mut kwargs = fields.object("chat_template_kwargs")?.unwrap_or_default();
    if let Some(effort) = fields.string("reasoning_effort")? {
        kwargs.entry("reasoning_effort").or_insert(Value::String(effort));
    }
    Ok(kwargs)
}

fn take_max_tokens(fields: &mut Fields) -> Result<MaxTokens, ApiError> {
    let newer = fields.uint("max_completion_tokens", 1..=u32::MAX)?;
    let older = fields.uint("max_tokens", 1..=u32::MAX)?;
    Ok(match (newer, older) {
        (Some(tokens), _) => MaxTokens::Asked { tokens, param: "max_completion_tokens" },
        (None, Some(tokens)) => MaxTokens::Asked { tokens, param: "max_tokens" },
        (None, None) => MaxTokens::Rest,
    })
}

fn take_logprobs(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    let is_asked = fields.boolean("logprobs")?.unwrap_or(false);
    let top = fields.uint("top_logprobs", 0..=MOST_TOP_LOGPROBS)?;
    match (is_asked, top) {
        (true, top) => Ok(Some(top.unwrap_or(0))),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => {
            Err(InvalidField::new("top_logprobs", "only allowed when logprobs is true").into())
        }
    }
}
