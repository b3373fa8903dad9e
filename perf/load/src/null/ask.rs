//! A request as far as the null server understands it.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// The body of a completion or a chat completion. What is not here is ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Ask {
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    pub(super) stream: bool,
    stream_options: Option<StreamOptions>,
    prompt: Size,
    messages: Size,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct StreamOptions {
    pub(super) include_usage: bool,
    pub(super) continuous_usage_stats: bool,
}

impl Ask {
    pub(super) fn tokens(&self) -> Option<u32> {
        self.max_completion_tokens.or(self.max_tokens)
    }

    pub(super) fn prompt_tokens(&self) -> u64 {
        self.prompt.0 + self.messages.0
    }

    pub(super) fn options(&self) -> StreamOptions {
        self.stream_options.unwrap_or_default()
    }
}

/// Tokens of a prompt: its words, or its token ids.
#[derive(Debug, Default)]
struct Size(u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Count;
        impl<'de> Visitor<'de> for Count {
            type Value = Size;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text, token ids or messages")
            }
            fn visit_str<E>(self, text: &str) -> Result<Size, E> {
                Ok(Size(text.split_ascii_whitespace().count() as u64))
            }
            fn visit_u64<E>(self, _: u64) -> Result<Size, E> {
                Ok(Size(1))
            }
            fn visit_unit<E>(self) -> Result<Size, E> {
                Ok(Size(0))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Size, A::Error> {
                let mut sum = 0;
                while let Some(Size(each)) = seq.next_element()? {
                    sum += each;
                }
                Ok(Size(sum))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Size, A::Error> {
                let mut sum = 0;
                while let Some(key) = map.next_key::<String>()? {
                    if key == "content" || key == "text" {
                        sum += map.next_value::<Size>()?.0;
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(Size(sum))
            }
        }
        deserializer.deserialize_any(Count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt_tokens(body: &str) -> u64 {
        serde_json::from_str::<Ask>(body).unwrap().prompt_tokens()
    }

    #[test]
    fn prompts_are_counted_in_each_of_their_forms() {
        assert_eq!(prompt_tokens(r#"{"prompt": "three little words"}"#), 3);
        assert_eq!(prompt_tokens(r#"{"prompt": [5, 6, 7, 8]}"#), 4);
        assert_eq!(prompt_tokens(r#"{"prompt": ["a b", "c"]}"#), 3);
        let chat = r#"{"messages": [{"role": "user", "content": "a b"}, {"role": "assistant", "content": [{"type": "text", "text": "c d e"}]}]}"#;
        assert_eq!(prompt_tokens(chat), 5);
        assert_eq!(prompt_tokens(r#"{"temperature": 0, "prompt": null}"#), 0);
    }
}
