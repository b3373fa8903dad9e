//! What a router has to know of a request that somebody else will parse and answer.
//!
//! A gateway's picker must not refuse what the server behind it would take: fields are not checked, and a conversation that can't be
//! rendered here is looked at as text. Text is also what long prompts are compared by: encoding 100,000 tokens takes longer than a picker may.

use serde_json::{Map, Value};

use crate::{
    Front,
    fields::Fields,
    prompt,
    request::{PromptSource, take_chat_prompt},
};

/// Bytes of text that count as one token: about what English has.
const BYTES_A_TOKEN: usize = 4;

/// A request, as a router sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// The model or adapter that it asks for.
    pub model: Option<String>,
    /// Its prompt's tokens; empty when they are not known.
    pub tokens: Vec<u32>,
    /// Its prompt's text, four bytes a number: prompts that begin the same have the same numbers at the beginning.
    pub text: Vec<u32>,
    /// Tokens to generate at most, if it says so.
    pub max_tokens: Option<u64>,
    /// With whom it shares cached prefixes.
    pub cache_salt: Option<String>,
}

/// A body, outlined without a model.
struct Read {
    outline: Outline,
    text_bytes: usize,
    body: Map<String, Value>,
}

/// It is no request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OutlineError(String);

impl Outline {
    /// Tokens of the prompt, or about as many as its text has.
    pub fn prompt_tokens(&self) -> u64 {
        let numbers = if self.tokens.is_empty() { self.text.len() } else { self.tokens.len() };
        numbers.max(1) as u64
    }

    /// Of a request to `/v1/chat/completions` or `/v1/completions`, without a model: its prompt's tokens are not known.
    ///
    /// # Errors
    /// [`OutlineError`]: the body is no JSON object.
    pub fn of_text(body: &[u8]) -> Result<Self, OutlineError> {
        Self::read(body).map(|Read { outline, .. }| outline)
    }

    fn read(body: &[u8]) -> Result<Read, OutlineError> {
        let body: Value = serde_json::from_slice(body)
            .map_err(|error| OutlineError(format!("The body is not valid JSON: {error}")))?;
        let Value::Object(body) = body else {
            return Err(OutlineError("The body must be a JSON object".to_owned()));
        };
        let text = text_of(&body);
        let string = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
        let number = |name: &str| body.get(name).and_then(Value::as_u64);
        let outline = Self {
            model: string("model"),
            max_tokens: number("max_completion_tokens").or_else(|| number("max_tokens")),
            cache_salt: string("cache_salt"),
            tokens: Vec::new(),
            text: numbers(&text),
        };
        Ok(Read { outline, text_bytes: text.len(), body })
    }
}

impl Front {
    /// Outlines a request to `/v1/chat/completions` or `/v1/completions`. Prompts of up to `most_encoded_bytes` of text are encoded.
    ///
    /// # Errors
    /// [`OutlineError`]: the body is no JSON object.
    pub async fn outline(&self, body: &[u8], most_encoded_bytes: usize) -> Result<Outline, OutlineError> {
        let Read { outline, text_bytes, body } = Outline::read(body)?;
        if text_bytes > most_encoded_bytes {
            return Ok(outline);
        }
        let tokens = match source(Fields(body)) {
            Some(source) => prompt::encode(&self.0, source).await.unwrap_or_default(),
            None => Vec::new(),
        };
        Ok(Outline { tokens, ..outline })
    }
}

fn source(mut fields: Fields) -> Option<PromptSource> {
    match fields.take("prompt") {
        Some(Value::String(text)) => Some(PromptSource::Text { text, add_special: true }),
        Some(Value::Array(ids)) => {
            let id = |id: &Value| u32::try_from(id.as_u64()?).ok();
            ids.iter().map(id).collect::<Option<_>>().map(PromptSource::Tokens)
        }
        _ => take_chat_prompt(&mut fields).ok().map(PromptSource::Chat),
    }
}

/// What prompts have in common at their beginning they have in common here.
fn text_of(body: &serde_json::Map<String, Value>) -> Vec<u8> {
    let mut text = Vec::new();
    match body.get("prompt") {
        Some(Value::String(prompt)) => text.extend_from_slice(prompt.as_bytes()),
        Some(other) => add_json(&mut text, other),
        None => {}
    }
    if let Some(tools) = body.get("tools") {
        add_json(&mut text, tools);
    }
    for message in body.get("messages").and_then(Value::as_array).into_iter().flatten() {
        text.extend_from_slice(message["role"].as_str().unwrap_or_default().as_bytes());
        text.push(0);
        match &message["content"] {
            Value::String(content) => text.extend_from_slice(content.as_bytes()),
            Value::Null => {}
            parts => add_json(&mut text, parts),
        }
        if let Some(calls) = message.get("tool_calls") {
            add_json(&mut text, calls);
        }
        text.push(0);
    }
    text
}

fn add_json(text: &mut Vec<u8>, value: &Value) {
    // Writing to memory does not fail.
    let _ = serde_json::to_writer(text, value);
}

fn numbers(text: &[u8]) -> Vec<u32> {
    let number = |bytes: &[u8; BYTES_A_TOKEN]| u32::from_le_bytes(*bytes);
    text.as_chunks().0.iter().map(number).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(body: Value) -> Vec<u8> {
        text_of(body.as_object().unwrap())
    }

    #[test]
    fn conversations_that_go_on_begin_the_same() {
        let system = json!({ "role": "system", "content": "be kind" });
        let first = text(json!({ "messages": [system, { "role": "user", "content": "hello" }] }));
        let second = text(json!({ "messages": [
            system,
            { "role": "user", "content": "hello" },
            { "role": "assistant", "content": "hi" },
            { "role": "user", "content": [{ "type": "text", "text": "and?" }] },
        ] }));
        assert!(second.starts_with(&first));
        let other = text(json!({ "messages": [system, { "role": "user", "content": "hell" }] }));
        assert!(!second.starts_with(&other));
        let with_tools = text(json!({ "tools": [{ "type": "function" }], "messages": [system] }));
        assert!(!with_tools.starts_with(&text(json!({ "messages": [system] }))));
    }

    #[test]
    fn completions_are_their_text_or_their_numbers() {
        assert_eq!(text(json!({ "prompt": "once upon" })), b"once upon");
        assert_eq!(text(json!({ "prompt": [1, 2] })), b"[1,2]");
        assert_eq!(numbers(b"\x01\0\0\0\x02\0\0\0\x03"), [1, 2]);
    }
}
