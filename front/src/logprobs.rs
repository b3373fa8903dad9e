//! Log probabilities in OpenAI's two shapes.

use baton_proto::v1::Token;
use baton_tokenizer::Tokenizer;
use serde::Serialize;
use serde_json::{Map, Value};

/// Chat: a list of tokens with their bytes and alternatives.
#[derive(Debug, Default, Serialize)]
pub(crate) struct ChatLogprobs {
    content: Vec<ChatLogprob>,
}

#[derive(Debug, Serialize)]
struct ChatLogprob {
    #[serde(flatten)]
    token: TokenLogprob,
    top_logprobs: Vec<TokenLogprob>,
}

#[derive(Debug, Serialize)]
struct TokenLogprob {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

/// Completions: parallel lists.
#[derive(Debug, Default, Serialize)]
pub(crate) struct LegacyLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<f32>,
    top_logprobs: Vec<Map<String, Value>>,
    text_offset: Vec<usize>,
}

/// JSON has no infinity; vLLM shows this for a token that could not have been chosen.
const IMPOSSIBLE: f32 = -9999.0;

pub(crate) fn chat(tokenizer: &Tokenizer, tokens: &[Token]) -> ChatLogprobs {
    let content = tokens.iter().map(|token| ChatLogprob {
        token: one(tokenizer, token.id, token.logprob),
        top_logprobs: token.top.iter().map(|top| one(tokenizer, top.token_id, Some(top.logprob))).collect(),
    });
    ChatLogprobs { content: content.collect() }
}

/// `offset` is how many characters the tokens before these have; it moves on.
pub(crate) fn legacy(tokenizer: &Tokenizer, tokens: &[Token], offset: &mut usize) -> LegacyLogprobs {
    let mut lists = LegacyLogprobs::default();
    for token in tokens {
        let chosen = one(tokenizer, token.id, token.logprob);
        let mut top: Map<String, Value> = token
            .top
            .iter()
            .map(|top| one(tokenizer, top.token_id, Some(top.logprob)))
            .map(|top| (top.token, top.logprob.into()))
            .collect();
        // The chosen token is always shown, also when it is not among the most likely.
        top.entry(chosen.token.clone()).or_insert_with(|| chosen.logprob.into());
        lists.text_offset.push(*offset);
        *offset += chosen.token.chars().count();
        lists.tokens.push(chosen.token);
        lists.token_logprobs.push(chosen.logprob);
        lists.top_logprobs.push(top);
    }
    lists
}

fn one(tokenizer: &Tokenizer, id: u32, logprob: Option<f32>) -> TokenLogprob {
    let bytes = tokenizer.token_bytes(id);
    let logprob = logprob.filter(|logprob| logprob.is_finite()).unwrap_or(IMPOSSIBLE);
    TokenLogprob { token: String::from_utf8_lossy(&bytes).into_owned(), logprob, bytes }
}
