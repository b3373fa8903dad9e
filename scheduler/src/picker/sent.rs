//! What is heard of a request that a gateway has sent.

use std::{sync::Arc, time::Duration};

use baton_endpoint_picker::{Response, Watch};

use crate::{
    epp::{Answered, Underway},
    router::{Route, Router},
};

/// Follows an answer as it passes.
pub(super) struct Sent {
    route: Route,
    router: Arc<Router>,
    status: u16,
    is_stream: bool,
    counted: Option<Underway>,
    first_byte: Option<Duration>,
    bytes: u64,
    /// The end of what has come: usage is there.
    tail: Vec<u8>,
}

/// Usage takes a few hundred bytes.
const TAIL_BYTES: usize = 1_024;

impl Sent {
    pub(super) fn new(route: Route, router: Arc<Router>, counted: Option<Underway>) -> Self {
        let (status, is_stream, tail) = (0, false, Vec::new());
        Self { route, router, status, is_stream, counted, first_byte: None, bytes: 0, tail }
    }
}

impl Watch for Sent {
    fn response(&mut self, response: &Response) {
        self.status = response.status;
        self.is_stream = response.is_stream;
        if response.status >= 500 {
            self.router.failed(&self.route.decode);
        }
        if let Some(counted) = self.counted.take_if(|_| response.status >= 400) {
            counted.failed(response.status, false);
        }
    }

    fn body(&mut self, chunk: &[u8]) {
        if self.status != 200 || chunk.is_empty() {
            return;
        }
        self.route.first_token();
        self.bytes += chunk.len() as u64;
        if let (None, Some(counted)) = (self.first_byte, &self.counted) {
            self.first_byte = Some(counted.elapsed());
        }
        if self.is_stream {
            self.route.tokens(events(chunk));
        }
        let keep = TAIL_BYTES.saturating_sub(chunk.len()).min(self.tail.len());
        self.tail.drain(..self.tail.len() - keep);
        self.tail.extend_from_slice(&chunk[chunk.len().saturating_sub(TAIL_BYTES)..]);
    }

    fn ended(&mut self) {
        if self.status != 200 {
            return;
        }
        if let Some(tokens) = number_after(&self.tail, b"\"completion_tokens\":") {
            self.route.counted(tokens);
        }
        self.route.complete();
        if let Some(counted) = self.counted.take() {
            let prompt_tokens = number_after(&self.tail, b"\"prompt_tokens\":");
            counted.answered(&Answered {
                is_stream: self.is_stream,
                first_token: self.first_byte,
                response_bytes: self.bytes,
                prompt_tokens: prompt_tokens.unwrap_or(self.route.prompt_tokens()),
                output_tokens: self.route.output_tokens(),
                cached_tokens: number_after(&self.tail, b"\"cached_tokens\":"),
            });
        }
    }
}

/// Server-sent events that begin in `chunk`; one is about one token.
fn events(chunk: &[u8]) -> usize {
    chunk.windows(6).filter(|window| window == b"data: ").count()
}

fn number_after(text: &[u8], name: &[u8]) -> Option<u64> {
    let at = text.windows(name.len()).rposition(|window| window == name)? + name.len();
    let digits = text[at..].iter().skip_while(|byte| **byte == b' ').take_while(|byte| byte.is_ascii_digit());
    let digits: Vec<u8> = digits.copied().collect();
    std::str::from_utf8(&digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_the_last_that_was_said() {
        let text = br#"{"usage":{"completion_tokens": 3}} {"usage":{"completion_tokens":42,"x":1}}"#;
        assert_eq!(number_after(text, b"\"completion_tokens\":"), Some(42));
        assert_eq!(number_after(b"no usage", b"\"completion_tokens\":"), None);
        assert_eq!(events(b"data: {}\n\ndata: [DONE]\n\n"), 2);
    }
}
