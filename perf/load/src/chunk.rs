//! One event of an answer, or an answer in one piece: only what measuring needs is parsed.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::Value;

/// What an event says.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Chunk<'a> {
    #[serde(borrow)]
    choices: First<Choice<'a>>,
    pub(crate) usage: Option<Usage>,
    error: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Choice<'a> {
    #[serde(borrow, alias = "message")]
    delta: Option<Delta<'a>>,
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow)]
    finish_reason: Option<Cow<'a, str>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Delta<'a> {
    #[serde(borrow)]
    content: Option<Cow<'a, str>>,
    // Servers that write both write the same.
    #[serde(borrow)]
    reasoning_content: Option<Cow<'a, str>>,
    #[serde(borrow)]
    reasoning: Option<Cow<'a, str>>,
    tool_calls: Option<First<IgnoredAny>>,
}

/// The server's count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Usage {
    pub(crate) prompt_tokens: u32,
    pub(crate) completion_tokens: u32,
    pub(crate) prompt_tokens_details: Option<PromptDetails>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct PromptDetails {
    pub(crate) cached_tokens: Option<u32>,
}

impl Usage {
    /// Prompt tokens that were not computed, if the server says.
    pub(crate) fn cached_tokens(&self) -> Option<u32> {
        self.prompt_tokens_details.and_then(|details| details.cached_tokens)
    }
}

impl Chunk<'_> {
    /// What the model says to the user.
    pub(crate) fn text(&self) -> &str {
        let Some(choice) = &self.choices.0 else { return "" };
        let content = choice.delta.as_ref().and_then(|delta| delta.content.as_deref());
        content.or(choice.text.as_deref()).unwrap_or_default()
    }

    /// What it says to itself.
    pub(crate) fn reasoning(&self) -> &str {
        let delta = self.choices.0.as_ref().and_then(|choice| choice.delta.as_ref());
        let reasoning =
            delta.and_then(|delta| delta.reasoning_content.as_deref().or(delta.reasoning.as_deref()));
        reasoning.unwrap_or_default()
    }

    /// Whether it brings anything that the model made.
    pub(crate) fn has_output(&self) -> bool {
        let delta = self.choices.0.as_ref().and_then(|choice| choice.delta.as_ref());
        let has_call = delta.is_some_and(|delta| matches!(delta.tool_calls, Some(First(Some(_)))));
        has_call || !self.text().is_empty() || !self.reasoning().is_empty()
    }

    /// There is nothing but maybe a usage in it.
    pub(crate) fn is_bare(&self) -> bool {
        self.choices.0.is_none()
    }

    pub(crate) fn finish_reason(&self) -> Option<&str> {
        self.choices.0.as_ref()?.finish_reason.as_deref()
    }

    /// The error that it is: what was said, and the status that goes with it.
    pub(crate) fn error(&self) -> Option<(String, Option<u16>)> {
        let error = self.error.as_ref().filter(|error| !error.is_null())?;
        let status = error.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
        Some((said(error), status.filter(|status| (400..600).contains(status))))
    }
}

/// What the body of an error says: in OpenAI's shape, in that of other servers, or as it is.
pub(crate) fn error_message(body: &[u8]) -> String {
    const MOST_CHARS: usize = 500;
    let value: Option<Value> = serde_json::from_slice(body).ok();
    let told =
        value.as_ref().and_then(|value| ["error", "message", "detail"].iter().find_map(|key| value.get(key)));
    let text = told.map_or_else(|| String::from_utf8_lossy(body).trim().to_owned(), said);
    text.chars().take(MOST_CHARS).collect()
}

fn said(error: &Value) -> String {
    let message = error.get("message").unwrap_or(error);
    message.as_str().map_or_else(|| message.to_string(), str::to_owned)
}

/// The first of a list; the others are passed over.
#[derive(Debug)]
struct First<T>(Option<T>);

impl<T> Default for First<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for First<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Take<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Take<T> {
            type Value = First<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_unit<E>(self) -> Result<First<T>, E> {
                Ok(First(None))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<First<T>, A::Error> {
                let first = seq.next_element()?;
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(First(first))
            }
        }
        deserializer.deserialize_any(Take(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(text: &str) -> Chunk<'_> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn events_of_both_apis_are_understood() {
        let chat = chunk(
            r#"{"id":"1","choices":[{"index":0,"delta":{"content":"h\u00e9"},"finish_reason":null}],"usage":null}"#,
        );
        assert_eq!((chat.text(), chat.has_output(), chat.finish_reason()), ("hé", true, None));
        let opening = chunk(r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#);
        assert!(!opening.has_output());
        let text = chunk(r#"{"choices":[{"text":" a","finish_reason":"stop"}]}"#);
        assert_eq!((text.text(), text.finish_reason()), (" a", Some("stop")));
        let thought = chunk(r#"{"choices":[{"delta":{"reasoning_content":"hm","reasoning":"hm"}}]}"#);
        assert_eq!((thought.reasoning(), thought.text(), thought.has_output()), ("hm", "", true));
        let call =
            chunk(r#"{"choices":[{"delta":{"content":null,"tool_calls":[{"index":0},{"index":1}]}}]}"#);
        assert!(call.has_output());
        let whole = chunk(r#"{"choices":[{"message":{"content":"all of it"},"finish_reason":"stop"}]}"#);
        assert_eq!(whole.text(), "all of it");
    }

    #[test]
    fn usage_is_read_with_what_was_cached() {
        let text = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":8}}}"#;
        let usage = chunk(text).usage.unwrap();
        assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens()), (9, 3, Some(8)));
        let bare =
            chunk(r#"{"usage":{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":null}}"#);
        assert_eq!(bare.usage.unwrap().cached_tokens(), None);
    }

    #[test]
    fn errors_are_told_in_whatever_shape_they_come() {
        let error = |text| chunk(text).error();
        assert_eq!(error(r#"{"error":{"message":"gone","code":503}}"#), Some(("gone".into(), Some(503))));
        assert_eq!(
            error(r#"{"error":{"message":"gone","code":"worker_lost"}}"#),
            Some(("gone".into(), None))
        );
        assert_eq!(error(r#"{"error":"gone"}"#), Some(("gone".into(), None)));
        assert_eq!(error(r#"{"error":null,"choices":[]}"#), None);
        assert_eq!(error_message(br#"{"error":{"message":"no"}}"#), "no");
        assert_eq!(error_message(br#"{"object":"error","message":"no"}"#), "no");
        assert_eq!(error_message(br#"{"detail":[{"loc":"x"}]}"#), r#"[{"loc":"x"}]"#);
        assert_eq!(error_message(b"<html>Bad gateway\n"), "<html>Bad gateway");
    }
}
