//! The span of finding a place for a request: where it goes, and what that was expected to take.

use std::future::Future;

use baton_process::{Span, SpanKind, TraceContext};

use super::{Refused, Route, not_now};

/// Follows `routing`, as a part of `parent`.
pub(crate) async fn traced(
    parent: &TraceContext,
    routing: impl Future<Output = Result<Route, Refused>>,
) -> Result<Route, Refused> {
    let mut span = Span::begin("route", SpanKind::Internal, parent);
    let routed = routing.await;
    match &routed {
        Ok(route) => describe(&mut span, route),
        Err(Refused::Nobody(error)) => span.fail("nobody", error.to_string()),
        Err(Refused::NotNow(refusal)) => span.fail("refused", not_now(refusal).to_string()),
    }
    routed
}

/// Where it goes.
pub(crate) fn describe(span: &mut Span, route: &Route) {
    if !span.is_recorded() {
        return;
    }
    let prefill = route.prefill.first();
    span.set("baton.decode_worker", route.decode.clone());
    span.set("baton.decision", if prefill.is_some() { "prefill-decode" } else { "decode-only" });
    if let Some(prefill) = prefill {
        span.set("baton.prefill_worker", prefill.clone());
    }
    span.set("baton.predicted_ttft_ms", route.predicted_ttft_ms());
    span.set_count("baton.prompt_tokens", route.prompt_tokens());
    span.set_count("baton.cached_tokens", route.cached_tokens());
}
