//! A request from its arrival to its end, as it is counted.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Epp, who::Who};

/// A request under way. It is running until this is dropped; without an end before, its client has left.
pub(crate) struct Underway {
    epp: Arc<Epp>,
    who: Who,
    began: Instant,
}

/// How a request was answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answered {
    /// In server-sent events.
    pub(crate) is_stream: bool,
    pub(crate) first_token: Option<Duration>,
    pub(crate) response_bytes: u64,
    pub(crate) prompt_tokens: u64,
    pub(crate) output_tokens: u64,
    /// Of the prompt, if that is known.
    pub(crate) cached_tokens: Option<u64>,
}

/// llm-d's word for an HTTP status that is an error. `is_here`: this process gave it, not a model server.
fn error_code(status: u16, is_here: bool) -> &'static str {
    match status {
        _ if !is_here => "ModelServerError",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        429 => "ResourceExhausted",
        503 => "ServiceUnavailable",
        400..=499 => "BadRequest",
        500..=599 => "Internal",
        _ => "Unknown",
    }
}

impl Underway {
    pub(super) fn begin(epp: Arc<Epp>, who: Who, bytes: u64) -> Self {
        {
            let mut tallies = epp.lock();
            let requests = tallies.of(&who);
            requests.total += 1;
            requests.running += 1;
            requests.request_bytes.observe(bytes as f64);
        }
        Self { epp, who, began: Instant::now() }
    }

    /// Since it came.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// It was refused, or failed, with this status. `is_here`: so said this process, not a model server.
    pub(crate) fn failed(self, status: u16, is_here: bool) {
        *self.epp.lock().of(&self.who).errors.entry(error_code(status, is_here)).or_default() += 1;
    }

    /// It was answered.
    pub(crate) fn answered(self, answered: &Answered) {
        let mut tallies = self.epp.lock();
        let requests = tallies.of(&self.who);
        let total = self.began.elapsed();
        requests.duration.observe(total.as_secs_f64());
        requests.response_bytes.observe(answered.response_bytes as f64);
        if answered.prompt_tokens > 0 {
            requests.input_tokens.observe(answered.prompt_tokens as f64);
        }
        if let Some(cached) = answered.cached_tokens {
            requests.cached_tokens.observe(cached as f64);
        }
        // Of an answer in one piece all tokens come at its end.
        let first = if answered.is_stream { answered.first_token } else { Some(total) };
        if let Some(first) = first {
            requests.ttft[usize::from(answered.is_stream)].observe(first.as_secs_f64());
        }
        let tokens = answered.output_tokens;
        if tokens == 0 {
            return;
        }
        requests.output_tokens.observe(tokens as f64);
        requests.normalized.observe(total.as_secs_f64() / tokens as f64);
        if let (Some(first), true) = (answered.first_token, answered.is_stream && tokens > 1) {
            let rest = total.saturating_sub(first).as_secs_f64();
            requests.tpot.observe(rest / (tokens - 1) as f64);
        }
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.epp.lock().of(&self.who).running -= 1;
    }
}
