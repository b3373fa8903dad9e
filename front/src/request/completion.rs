//! `/v1/completions`.

use std::sync::Arc;

use serde_json::Value;

use super::{
    super::{
        api_error::ApiError,
        fields::{Fields, InvalidField, token_ids},
    },
    GenerateJob, MaxTokens, ParseLimits, PromptSource, ToolUse,
    format::take_format,
    sampling::{take_sampling, take_text},
    take_cache_salt, take_n, take_stream,
    unsupported::refuse_unsupported,
};

/// OpenAI's default for completions.
const DEFAULT_MAX_TOKENS: u32 = 16;
const MOST_LOGPROBS: u32 = 20;

pub(crate) fn parse_completion(mut fields: Fields, limits: &ParseLimits) -> Result<GenerateJob, ApiError> {
    let prompts = take_prompts(&mut fields, limits)?;
    let n = take_n(&mut fields, prompts.len(), limits)?;
    refuse_unsupported(&mut fields, n)?;
    let sampling = take_sampling(&mut fields, limits.vocab_size)?;
    let text = take_text(&mut fields, &sampling)?;
    let format = take_format(&mut fields)?;
    let max_tokens = match fields.uint("max_tokens", 1..=u32::MAX)? {
        Some(tokens) => MaxTokens::Asked { tokens, param: "max_tokens" },
        None => MaxTokens::Default(DEFAULT_MAX_TOKENS),
    };
    let logprobs = fields.uint("logprobs", 0..=MOST_LOGPROBS)?;
    let echo = fields.boolean("echo")?.unwrap_or(false);
    if echo && logprobs.is_some() {
        return Err(InvalidField::new("echo", "not supported together with logprobs").into());
    }
    Ok(GenerateJob {
        adapter: None,
        cache_salt: take_cache_salt(&mut fields)?,
        prompts,
        n,
        max_tokens,
        logprobs,
        echo,
        stream: take_stream(&mut fields)?,
        headers: Arc::default(),
        owner: None,
        sampling,
        text,
        format,
        tools: ToolUse::default(),
        hide_reasoning: false,
    })
}

/// A string, a list of strings, a list of token ids, or a list of such lists.
fn take_prompts(fields: &mut Fields, limits: &ParseLimits) -> Result<Vec<PromptSource>, ApiError> {
    const EXPECTED: &str = "a string, an array of strings, an array of token ids, or an array of such arrays";
    let add_special = fields.boolean("add_special_tokens")?.unwrap_or(true);
    let prompt = fields
        .take("prompt")
        .ok_or_else(|| InvalidField::new("prompt", format!("expected {EXPECTED}, got nothing")))?;
    let items = match prompt {
        Value::String(text) => return Ok(vec![PromptSource::Text { text, add_special }]),
        Value::Array(items) if items.is_empty() => {
            return Err(InvalidField::new("prompt", "expected at least one token or prompt, got none").into());
        }
        Value::Array(items) if items.iter().all(Value::is_number) => {
            return Ok(vec![PromptSource::Tokens(token_ids(&items, "prompt", limits.vocab_size)?)]);
        }
        Value::Array(items) => items,
        other => return Err(InvalidField::expected("prompt", EXPECTED, &other).into()),
    };
    if items.len() > usize::try_from(limits.max_choices).unwrap_or(usize::MAX) {
        let problem = format!("expected at most {} prompts, got {}", limits.max_choices, items.len());
        return Err(InvalidField::new("prompt", problem).into());
    }
    let prompt = |(at, item): (usize, Value)| match item {
        Value::String(text) => Ok(PromptSource::Text { text, add_special }),
        Value::Array(ids) if !ids.is_empty() => {
            Ok(PromptSource::Tokens(token_ids(&ids, &format!("prompt[{at}]"), limits.vocab_size)?))
        }
        other => Err(InvalidField::expected(format!("prompt[{at}]"), "a string or token ids", &other).into()),
    };
    items.into_iter().enumerate().map(prompt).collect()
}
