//! Requests as bytes.

use serde_json::{Map, Value, json};

use crate::{ApiShape, Prompt, Target};

/// What every request of a run says beside its prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Manner {
    /// Which API.
    pub shape: ApiShape,
    /// The model that is asked for.
    pub model: String,
    /// Answers come token by token.
    pub is_stream: bool,
    /// How much the server is asked for that not every server knows.
    pub extras: Extras,
    /// Added to every body; a field that is there already is replaced.
    pub body: Map<String, Value>,
    /// Added to every head.
    pub headers: Vec<(String, String)>,
}

/// Fields that some servers refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extras {
    /// `stream_options.include_usage`.
    pub usage: bool,
    /// `stream_options.continuous_usage_stats`.
    pub continuous_usage: bool,
    /// `ignore_eos`, so that answers are as long as planned.
    pub ignore_eos: bool,
}

impl Extras {
    /// Everything that helps.
    pub const ALL: Self = Self { usage: true, continuous_usage: true, ignore_eos: true };

    /// What is tried, one after the other, until a server does not refuse it.
    pub(crate) const LADDER: [Self; 5] = [
        Self::ALL,
        Self { usage: true, continuous_usage: false, ignore_eos: true },
        Self { usage: true, continuous_usage: true, ignore_eos: false },
        Self { usage: true, continuous_usage: false, ignore_eos: false },
        Self { usage: false, continuous_usage: false, ignore_eos: false },
    ];
}

impl Manner {
    /// The path that is asked for.
    #[must_use]
    pub fn path(&self) -> &'static str {
        match self.shape {
            ApiShape::Chat => "/v1/chat/completions",
            ApiShape::Completion => "/v1/completions",
        }
    }

    /// The bytes of a request for `tokens` tokens after `prompt`.
    pub(crate) fn request(&self, target: &Target, id: &str, prompt: Prompt, tokens: u32) -> Vec<u8> {
        let mut body = Map::new();
        body.insert("model".to_owned(), json!(self.model));
        match (self.shape, prompt) {
            (ApiShape::Completion, Prompt::Text(text)) => body.insert("prompt".to_owned(), json!(text)),
            (ApiShape::Completion, Prompt::Tokens(ids)) => body.insert("prompt".to_owned(), json!(ids)),
            (ApiShape::Completion, Prompt::Messages(messages)) => {
                let texts: Vec<String> = messages.into_iter().map(|message| message.content).collect();
                body.insert("prompt".to_owned(), json!(texts.join("\n")))
            }
            (ApiShape::Chat, Prompt::Messages(messages)) => {
                body.insert("messages".to_owned(), json!(messages))
            }
            (ApiShape::Chat, Prompt::Text(text)) => {
                body.insert("messages".to_owned(), json!([{ "role": "user", "content": text }]))
            }
            (ApiShape::Chat, Prompt::Tokens(_)) => {
                debug_assert!(false, "a conversation can't be given as token ids");
                None
            }
        };
        let most = match self.shape {
            ApiShape::Chat => "max_completion_tokens",
            ApiShape::Completion => "max_tokens",
        };
        body.insert(most.to_owned(), json!(tokens));
        body.insert("stream".to_owned(), json!(self.is_stream));
        if self.is_stream && self.extras.usage {
            let mut options = json!({ "include_usage": true });
            if self.extras.continuous_usage {
                options["continuous_usage_stats"] = json!(true);
            }
            body.insert("stream_options".to_owned(), options);
        }
        if self.extras.ignore_eos {
            body.insert("ignore_eos".to_owned(), json!(true));
        }
        body.extend(self.body.clone());
        let extra = format!("accept: text/event-stream\r\nx-request-id: {id}\r\n");
        self.write_post(target, self.path(), &extra, &Value::Object(body).to_string())
    }

    /// The bytes of a request that says `body` to what is at `path`.
    pub(crate) fn post(&self, target: &Target, path: &str, body: &Value) -> Vec<u8> {
        self.write_post(target, path, "", &body.to_string())
    }

    fn write_post(&self, target: &Target, path: &str, extra: &str, body: &str) -> Vec<u8> {
        let mut head = format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n{extra}user-agent: baton/{}\r\n\
             content-length: {}\r\n",
            target.path_to(path),
            target.authority(),
            env!("CARGO_PKG_VERSION"),
            body.len()
        );
        self.write_headers(&mut head);
        (head + "\r\n" + body).into_bytes()
    }

    /// The bytes of a request for what is at `path`.
    pub(crate) fn get(&self, target: &Target, path: &str) -> Vec<u8> {
        let mut head = format!(
            "GET {} HTTP/1.1\r\nhost: {}\r\nuser-agent: baton/{}\r\n",
            target.path_to(path),
            target.authority(),
            env!("CARGO_PKG_VERSION")
        );
        self.write_headers(&mut head);
        (head + "\r\n").into_bytes()
    }

    fn write_headers(&self, head: &mut String) {
        for (name, value) in &self.headers {
            head.extend([name.as_str(), ": ", value.as_str(), "\r\n"]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Message;

    fn manner(shape: ApiShape) -> Manner {
        Manner {
            shape,
            model: "m".to_owned(),
            is_stream: true,
            extras: Extras::LADDER[0],
            body: Map::new(),
            headers: vec![("authorization".to_owned(), "Bearer k".to_owned())],
        }
    }

    fn written(manner: &Manner, prompt: Prompt) -> (String, Value) {
        let target = "http://h:1/base".parse().unwrap();
        let text = String::from_utf8(manner.request(&target, "id-7", prompt, 5)).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        (head.to_owned(), serde_json::from_str(body).unwrap())
    }

    #[test]
    fn a_conversation_is_asked_for_with_all_that_helps_counting() {
        let prompt = Prompt::Messages(vec![Message { role: "user", content: "hé".to_owned() }]);
        let (head, body) = written(&manner(ApiShape::Chat), prompt);
        assert!(head.starts_with("POST /base/v1/chat/completions HTTP/1.1\r\nhost: h:1\r\n"));
        assert!(head.contains("x-request-id: id-7") && head.contains("authorization: Bearer k"));
        let expected = json!({
            "model": "m", "messages": [{ "role": "user", "content": "hé" }], "max_completion_tokens": 5, "stream": true,
            "stream_options": { "include_usage": true, "continuous_usage_stats": true }, "ignore_eos": true,
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn completions_take_text_and_token_ids_and_ones_own_fields() {
        let mut plain = manner(ApiShape::Completion);
        plain.extras = Extras::LADDER[4];
        plain.body.insert("max_tokens".to_owned(), json!(9));
        let (_, body) = written(&plain, Prompt::Tokens(vec![1, 2]));
        assert_eq!(body, json!({ "model": "m", "prompt": [1, 2], "max_tokens": 9, "stream": true }));
        let (_, body) = written(&plain, Prompt::Text("t".to_owned()));
        assert_eq!(body["prompt"], "t");
    }
}
