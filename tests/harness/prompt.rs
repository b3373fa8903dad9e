//! Requests by token ids, and answers that can be compared bit for bit.

use std::thread;

use serde_json::{Value, json};

use super::{Client, model::Random};

/// A request to `/v1/completions` with a prompt of token ids; greedy unless told otherwise, and never cut short by the
/// model's end-of-sequence token.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    body: Value,
}

/// What a request was answered, as far as it may not depend on the way there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    /// The text.
    pub(crate) text: String,
    /// Each token, as text, with its log probability.
    pub(crate) tokens: Vec<(String, f64)>,
    /// `stop` or `length`.
    pub(crate) finish_reason: String,
    /// Prompt and completion tokens, as billed.
    pub(crate) usage: (u64, u64),
}

/// A prompt of `length` token ids that any model of these tests has; another `seed`, another prompt.
pub(crate) fn prompt_of(length: usize, seed: u64) -> Vec<u32> {
    let mut random = Random(seed ^ (length as u64) << 32);
    (0..length).map(|_| 10 + u32::try_from(random.next() % 240).expect("below 240")).collect()
}

impl Ask {
    /// For `max_tokens` tokens after `prompt`.
    pub(crate) fn new(prompt: &[u32], max_tokens: usize) -> Self {
        let body = json!({
            "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": true, "logprobs": 1,
        });
        Self { body }
    }

    /// With one more field, or another value of one.
    pub(crate) fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.body[field] = value.into();
        self
    }

    /// The request's JSON.
    pub(crate) fn body(&self) -> &Value {
        &self.body
    }

    /// Asks for the answer in one piece.
    pub(crate) fn answer(&self, client: &Client) -> Answer {
        Answer::from_whole(&client.post("/v1/completions", &self.body).ok())
    }

    /// Asks for a stream; see [`Answer::from_events`].
    pub(crate) fn stream(&self, client: &Client) -> super::Stream {
        let asked = self.clone().with("stream", true).with("stream_options", json!({"include_usage": true}));
        client.stream("/v1/completions", &asked.body)
    }
}

impl Answer {
    /// Reads an answer in one piece.
    pub(crate) fn from_whole(answer: &Value) -> Self {
        let choice = &answer["choices"][0];
        Self {
            text: text_of(choice),
            tokens: tokens_of(choice),
            finish_reason: choice["finish_reason"].as_str().unwrap_or("none").to_owned(),
            usage: usage_of(&answer["usage"]),
        }
    }

    /// Puts the pieces of a stream together.
    pub(crate) fn from_events(events: &[Value]) -> Self {
        let mut answer =
            Self { text: String::new(), tokens: Vec::new(), finish_reason: "none".to_owned(), usage: (0, 0) };
        for event in events {
            assert!(event.get("error").is_none(), "the stream reports an error: {event}");
            if let Some(choice) = event["choices"].get(0) {
                answer.text += &text_of(choice);
                answer.tokens.extend(tokens_of(choice));
                if let Some(reason) = choice["finish_reason"].as_str() {
                    assert_eq!(answer.finish_reason, "none", "a second finish_reason: {event}");
                    answer.finish_reason = reason.to_owned();
                }
            }
            if event["usage"].is_object() {
                answer.usage = usage_of(&event["usage"]);
            }
        }
        answer
    }
}

fn text_of(choice: &Value) -> String {
    choice["text"].as_str().unwrap_or_else(|| panic!("no text: {choice}")).to_owned()
}

fn tokens_of(choice: &Value) -> Vec<(String, f64)> {
    let list = |name: &str| choice["logprobs"][name].as_array().cloned().unwrap_or_default();
    let pairs = list("tokens").into_iter().zip(list("token_logprobs"));
    pairs
        .map(|(token, logprob)| {
            let token = token.as_str().unwrap_or_else(|| panic!("no token text: {choice}")).to_owned();
            (token, logprob.as_f64().unwrap_or_else(|| panic!("no log probability: {choice}")))
        })
        .collect()
}

fn usage_of(usage: &Value) -> (u64, u64) {
    let count = |name: &str| usage[name].as_u64().unwrap_or_else(|| panic!("no {name} in {usage}"));
    assert_eq!(count("total_tokens"), count("prompt_tokens") + count("completion_tokens"), "{usage}");
    (count("prompt_tokens"), count("completion_tokens"))
}

/// Asks for all of them at the same time; answers come in the order of `asks`.
pub(crate) fn all_at_once(asks: &[Ask], client: &Client) -> Vec<Answer> {
    thread::scope(|scope| {
        let requests: Vec<_> = asks.iter().map(|ask| scope.spawn(|| ask.answer(client))).collect();
        requests.into_iter().map(|request| request.join().expect("answered")).collect()
    })
}
