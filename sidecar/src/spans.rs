//! The sidecar's span of a request: who served, and what did not.

use baton_process::Span;

use crate::control::{Outcome, Plan};

/// How it ended.
pub(crate) fn end(span: &mut Span, request_id: &str, plan: &Plan, outcome: Outcome) {
    if !span.is_recorded() {
        return;
    }
    let record = plan.record();
    span.set("baton.request_id", request_id.to_owned());
    span.set("baton.prefill_worker", plan.prefilled_by().to_owned());
    span.set("baton.outcome", outcome.name());
    for (key, us) in [
        ("baton.queue_us", record.queue_us),
        ("baton.prefill_us", record.prefill_us),
        ("baton.transfer_us", record.transfer_us),
        ("baton.decode_wait_us", record.decode_wait_us),
        ("baton.decode_us", record.decode_us),
        ("baton.transfer_bytes", record.transfer_bytes),
        ("baton.cached_tokens", u64::from(record.cached_prompt_tokens)),
    ] {
        span.set_count(key, us);
    }
    for setback in &record.setbacks {
        let cause = setback.cause.name().to_owned();
        span.event(
            "a prefill worker did not serve",
            [
                ("baton.prefill_worker", setback.worker.clone()),
                ("error.type", cause),
                ("reason", setback.reason.clone()),
            ],
        );
    }
    if let Outcome::Failed(_) = outcome {
        span.fail(outcome.name(), record.fallback());
    }
}
