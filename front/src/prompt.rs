//! From a prompt to its tokens, and whether they fit.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use baton_tokenizer::{ChatInput, Tokenizer};
use serde_json::Value;
use tokio::task;

use crate::{
    App,
    api_error::ApiError,
    error::{GenerateError, NeverFits},
    request::{ChatPrompt, MaxTokens, PromptSource},
};

/// Shorter texts are encoded where they are: handing them to another thread would cost more.
const INLINE_BYTES: usize = 4 << 10;

/// Token ids of `source`. Long texts are encoded off the async threads, a bounded number at a time.
pub(crate) async fn encode(app: &App, source: PromptSource) -> Result<Vec<u32>, ApiError> {
    let started = Instant::now();
    let tokenizer = app.tokenizer.clone();
    let ids = if let PromptSource::Tokens(ids) = source {
        ids
    } else if source.text_bytes() <= INLINE_BYTES {
        encode_text(&tokenizer, source)?
    } else {
        let permit =
            app.encoders.clone().acquire_owned().await.map_err(|_| ApiError::internal("stopping"))?;
        let encoded = task::spawn_blocking(move || {
            // Held until the work is done, even if the client has gone.
            let _permit = permit;
            encode_text(&tokenizer, source)
        });
        encoded
            .await
            .map_err(|error| ApiError::internal(format!("encoding the prompt failed: {error}")))??
    };
    app.metrics.tokenize.observe(started.elapsed().as_secs_f64());
    Ok(ids)
}

fn encode_text(tokenizer: &Arc<Tokenizer>, source: PromptSource) -> Result<Vec<u32>, ApiError> {
    let (text, add_special) = match source {
        PromptSource::Tokens(ids) => return Ok(ids),
        PromptSource::Text { text, add_special } => (text, add_special),
        PromptSource::Chat(chat) => (render(tokenizer, &chat)?, chat.add_special),
    };
    tokenizer
        .encode(&text, add_special)
        .map_err(|error| ApiError::invalid(format!("The prompt can't be encoded: {error}")))
}

fn render(tokenizer: &Tokenizer, chat: &ChatPrompt) -> Result<String, ApiError> {
    let input = ChatInput {
        messages: &chat.messages,
        tools: chat.tools.shown(),
        add_generation_prompt: chat.add_generation_prompt,
        kwargs: &chat.kwargs,
    };
    Ok(tokenizer.render_chat(&input, SystemTime::now())?)
}

/// Tokens to generate at most after a prompt of `prompt_tokens`.
///
/// What the client asked for is granted or refused, never cut; a default is cut to the room there is.
pub(crate) fn completion_limit(
    prompt_tokens: usize,
    asked: MaxTokens,
    context_tokens: Option<u32>,
    capacity_tokens: Option<u64>,
    param: &str,
) -> Result<u32, ApiError> {
    let prompt = u64::try_from(prompt_tokens).unwrap_or(u64::MAX);
    if prompt == 0 {
        return Err(ApiError::invalid("The prompt has no tokens").param(param));
    }
    let context = context_tokens.map_or(u64::MAX, u64::from);
    if prompt >= context {
        let message = format!(
            "This model's context is {context} tokens, and the prompt has {prompt}: at least one token must be left to generate"
        );
        return Err(ApiError::context_length(message, param));
    }
    let asked_tokens = if let MaxTokens::Asked { tokens, param } = asked {
        if prompt + u64::from(tokens) > context {
            let message = format!(
                "This model's context is {context} tokens, and {} were asked for: {prompt} in the prompt and {tokens} in \
                 {param}. Shorten the prompt or lower {param}",
                prompt + u64::from(tokens)
            );
            return Err(ApiError::context_length(message, param));
        }
        Some(tokens)
    } else {
        None
    };
    let capacity = capacity_tokens.unwrap_or(u64::MAX);
    let needed_tokens = prompt + u64::from(asked_tokens.unwrap_or(1));
    if needed_tokens > capacity {
        let max_tokens = u64::from(asked_tokens.unwrap_or(1));
        let never = NeverFits { needed_tokens, prompt_tokens: prompt, max_tokens, capacity_tokens: capacity };
        return Err(GenerateError::from(never).into());
    }
    let room = u32::try_from(context.min(capacity) - prompt).unwrap_or(u32::MAX);
    Ok(match asked {
        MaxTokens::Asked { tokens, .. } => tokens,
        MaxTokens::Default(tokens) => tokens.min(room),
        MaxTokens::Rest => room,
    })
}

impl PromptSource {
    /// About how much text there is to encode.
    fn text_bytes(&self) -> usize {
        match self {
            Self::Tokens(_) => 0,
            Self::Text { text, .. } => text.len(),
            Self::Chat(chat) => {
                let content = |message: &Value| match &message["content"] {
                    Value::Array(parts) => {
                        parts.iter().filter_map(|part| part["text"].as_str()).map(str::len).sum()
                    }
                    text => text.as_str().map_or(0, str::len),
                };
                let tools = chat.tools.shown().map_or(0, <[_]>::len) * 512;
                chat.messages.iter().map(content).sum::<usize>() + chat.messages.len() * 16 + tools
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: MaxTokens = MaxTokens::Asked { tokens: 10, param: "max_tokens" };

    fn check(prompt: usize, asked: MaxTokens, context: u32, capacity: u64, expected: Result<u32, &[&str]>) {
        let found = completion_limit(prompt, asked, Some(context), Some(capacity), "messages");
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(error), Err(parts)) => {
                assert_eq!(error.body.code, Some("context_length_exceeded"));
                let message = &error.body.message;
                assert!(parts.iter().all(|part| message.contains(part)), "{message}");
            }
            (found, expected) => panic!("{found:?} where {expected:?} was expected"),
        }
    }

    #[test]
    fn what_was_asked_for_is_granted_or_refused() {
        check(90, TEN, 100, 1_000, Ok(10));
        check(
            91,
            TEN,
            100,
            1_000,
            Err(&["100 tokens", "101 were asked for", "91 in the prompt", "10 in max_tokens"]),
        );
        check(91, TEN, 1_000, 100, Err(&["101 tokens", "room for 100"]));
    }

    #[test]
    fn a_default_is_cut_to_the_room() {
        check(90, MaxTokens::Rest, 100, 1_000, Ok(10));
        check(90, MaxTokens::Rest, 1_000, 95, Ok(5));
        check(90, MaxTokens::Default(16), 100, 1_000, Ok(10));
        check(10, MaxTokens::Default(16), 100, 1_000, Ok(16));
    }

    #[test]
    fn a_prompt_that_leaves_no_room_is_refused_with_both_numbers() {
        check(100, MaxTokens::Rest, 100, 1_000, Err(&["100 tokens", "has 100"]));
        check(100, MaxTokens::Rest, 1_000, 100, Err(&["101 tokens", "room for 100"]));
    }
}
