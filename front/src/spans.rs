//! The front's span of a request, in the words of OpenTelemetry's GenAI conventions.

use std::time::Duration;

use baton_process::Span;

use crate::{EndedBy, RequestEnd, metrics::gen_ai, request::GenerateJob};

/// A request that has ended, as far as the span does not know it yet.
pub(crate) struct Ended {
    pub(crate) way: EndedBy,
    pub(crate) end: RequestEnd,
    pub(crate) finish: Option<&'static str>,
    pub(crate) first_token: Option<Duration>,
    pub(crate) error: Option<String>,
    pub(crate) prefill_worker: String,
    pub(crate) decode_worker: String,
}

/// What is known when it arrives.
pub(crate) fn begin(span: &mut Span, request_id: &str, endpoint: &'static str) {
    if !span.is_recorded() {
        return;
    }
    span.set("gen_ai.operation.name", gen_ai::operation(endpoint));
    span.set("gen_ai.provider.name", gen_ai::PROVIDER);
    span.set("http.request.method", "POST");
    span.set("http.route", endpoint);
    span.set("baton.request_id", request_id.to_owned());
}

/// What is asked for.
pub(crate) fn describe(
    span: &mut Span,
    endpoint: &'static str,
    model: &str,
    job: &GenerateJob,
    max_tokens: u32,
) {
    span.rename(format!("{} {model}", gen_ai::operation(endpoint)));
    span.set("gen_ai.request.model", model.to_owned());
    span.set("gen_ai.request.max_tokens", i64::from(max_tokens));
    span.set("gen_ai.request.choice.count", i64::from(job.n));
    span.set("gen_ai.request.stream", job.stream.is_some());
    span.set("gen_ai.response.model", model.to_owned());
}

/// How it ended.
pub(crate) fn end(span: &mut Span, ended: Ended) {
    let Ended { way, end, finish, first_token, error, prefill_worker, decode_worker } = ended;
    span.set_count("gen_ai.usage.input_tokens", end.prompt_tokens);
    span.set_count("gen_ai.usage.output_tokens", end.output_tokens);
    span.set_count("gen_ai.usage.cache_read.input_tokens", end.cached_tokens);
    if let Some(finish) = finish {
        span.set_words("gen_ai.response.finish_reasons", &[finish]);
    }
    if let Some(first_token) = first_token {
        span.set("gen_ai.response.time_to_first_chunk", first_token.as_secs_f64());
    }
    for (key, worker) in [("baton.prefill_worker", prefill_worker), ("baton.decode_worker", decode_worker)] {
        if !worker.is_empty() {
            span.set(key, worker);
        }
    }
    match way {
        EndedBy::Answer => span.set("http.response.status_code", 200_i64),
        EndedBy::Client => span.fail("cancelled", "the client left"),
        EndedBy::Error(status) => {
            span.set("http.response.status_code", i64::from(status));
            span.fail(status.to_string(), error.unwrap_or_default());
        }
    }
}
