//! The bytes of an answer.

use std::{fmt::Write as _, time::Duration};

use super::{
    Truth,
    ask::{Ask, StreamOptions},
    ledger::Sent,
};
use crate::{ApiShape, clock::Stamp};

/// What it says, once a token.
const WORD: &str = " a";

/// An answer being given.
#[derive(Debug)]
pub(super) struct Answer {
    shape: ApiShape,
    pub(super) is_stream: bool,
    options: StreamOptions,
    prompt_tokens: u64,
    /// In all.
    tokens: u32,
    /// Given so far.
    given: u32,
    /// The event that comes next.
    event: u32,
    pub(super) sent: Sent,
    pub(super) arrived: Stamp,
}

impl Answer {
    pub(super) fn new(
        shape: ApiShape,
        ask: &Ask,
        request_id: String,
        default_tokens: u32,
        arrived: Stamp,
    ) -> Self {
        Self {
            shape,
            is_stream: ask.stream,
            options: ask.options(),
            prompt_tokens: ask.prompt_tokens(),
            tokens: ask.tokens().unwrap_or(default_tokens).max(1),
            given: 0,
            event: 0,
            sent: Sent { request_id, arrived_ns: arrived.0, events: Vec::new() },
            arrived,
        }
    }

    /// Work from the request's arrival to the next event; of an answer in one piece, to its end.
    pub(super) fn next_after(&self, truth: &Truth) -> Duration {
        if self.is_stream {
            return truth.event(self.event, self.tokens).1;
        }
        truth.ttft + truth.itl * (self.tokens - 1)
    }

    /// Adds the next event, at `now`, and what follows the last one. Whether it was that.
    pub(super) fn write_next(&mut self, truth: &Truth, now: Stamp, out: &mut Vec<u8>) -> bool {
        if !self.is_stream {
            self.sent.events.push((now.0, self.tokens));
            let body = self.whole(&truth.model);
            super::head::whole("200 OK", "application/json", &self.sent.request_id, &body, out);
            return true;
        }
        if self.event == 0 {
            super::head::stream(&self.sent.request_id, out);
            if self.shape == ApiShape::Chat {
                let usage = self.options.continuous_usage_stats;
                self.write_event(&truth.model, r#"{"role":"assistant","content":""}"#, None, usage, out);
            }
        }
        let (own, _) = truth.event(self.event, self.tokens);
        self.event += 1;
        self.given += own;
        self.sent.events.push((now.0, own));
        let is_last = self.given == self.tokens;
        let words = WORD.repeat(own as usize);
        let finish = is_last.then_some("length");
        let content = match self.shape {
            ApiShape::Chat => format!(r#"{{"content":"{words}"}}"#),
            ApiShape::Completion => words,
        };
        self.write_event(&truth.model, &content, finish, self.options.continuous_usage_stats, out);
        if is_last {
            self.write_end(&truth.model, out);
        }
        is_last
    }

    fn write_end(&self, model: &str, out: &mut Vec<u8>) {
        if self.options.include_usage {
            let (object, id) = (self.object(), &self.sent.request_id);
            let usage = self.usage();
            let data = format!(
                r#"{{"id":"{id}","object":"{object}","created":1,"model":"{model}","choices":[],"usage":{usage}}}"#
            );
            super::head::chunk(&["data: ", &data, "\n\n"], out);
        }
        super::head::chunk(&["data: [DONE]\n\n"], out);
        out.extend_from_slice(b"0\r\n\r\n");
    }

    /// `content`: a delta as JSON, or the text of a completion.
    fn write_event(
        &self,
        model: &str,
        content: &str,
        finish: Option<&str>,
        has_usage: bool,
        out: &mut Vec<u8>,
    ) {
        let (object, id) = (self.object(), &self.sent.request_id);
        let mut data = String::with_capacity(320);
        let _ = write!(
            data,
            r#"{{"id":"{id}","object":"{object}","created":1,"model":"{model}","choices":[{{"index":0,"#
        );
        let _ = match self.shape {
            ApiShape::Chat => write!(data, r#""delta":{content},"#),
            ApiShape::Completion => write!(data, r#""text":"{content}","#),
        };
        let _ = match finish {
            Some(reason) => write!(data, r#""logprobs":null,"finish_reason":"{reason}"}}]"#),
            None => write!(data, r#""logprobs":null,"finish_reason":null}}]"#),
        };
        if has_usage {
            let _ = write!(data, r#","usage":{}"#, self.usage());
        }
        data.push('}');
        super::head::chunk(&["data: ", &data, "\n\n"], out);
    }

    fn whole(&self, model: &str) -> String {
        let (id, usage) = (&self.sent.request_id, {
            let Self { prompt_tokens, tokens, .. } = self;
            usage(*prompt_tokens, *tokens)
        });
        let words = WORD.repeat(self.tokens as usize);
        let (object, content) = match self.shape {
            ApiShape::Chat => {
                ("chat.completion", format!(r#""message":{{"role":"assistant","content":"{words}"}}"#))
            }
            ApiShape::Completion => ("text_completion", format!(r#""text":"{words}""#)),
        };
        format!(
            r#"{{"id":"{id}","object":"{object}","created":1,"model":"{model}","choices":[{{"index":0,{content},"finish_reason":"length"}}],"usage":{usage}}}"#
        )
    }

    fn object(&self) -> &'static str {
        match self.shape {
            ApiShape::Chat => "chat.completion.chunk",
            ApiShape::Completion => "text_completion",
        }
    }

    fn usage(&self) -> String {
        usage(self.prompt_tokens, self.given)
    }
}

fn usage(prompt: u64, given: u32) -> String {
    format!(
        r#"{{"prompt_tokens":{prompt},"completion_tokens":{given},"total_tokens":{},"prompt_tokens_details":{{"cached_tokens":0}}}}"#,
        prompt + u64::from(given)
    )
}
