//! The prefill worker's span of a request, with a part for each thing that it waited for.

use std::time::{Duration, SystemTime};

use baton_engine::FirstToken;
use baton_process::Span;

/// The prompt is computed. When that was.
pub(crate) fn computed(span: &mut Span, request_id: &str, first: &FirstToken) -> SystemTime {
    let now = SystemTime::now();
    if span.is_recorded() {
        let before = |at: SystemTime, us: u64| at.checked_sub(Duration::from_micros(us)).unwrap_or(at);
        let began = before(now, first.timing.prefill_us);
        Span::past("queue", span.context(), (before(began, first.timing.queue_us), began));
        Span::past("compute", span.context(), (began, now));
        span.set("baton.request_id", request_id.to_owned());
        span.set_count("baton.cached_tokens", first.cached_tokens as u64);
    }
    now
}

/// All blocks have been written; most were while others were still computed.
pub(crate) fn pushed(span: &mut Span, computed_at: SystemTime, bytes: u64) {
    if span.is_recorded() {
        Span::past("transfer", span.context(), (computed_at, SystemTime::now()));
        span.set_count("baton.transfer_bytes", bytes);
    }
}
