//! What is said about a request when it is over: one log line, and the metrics.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::extract::Request;
use baton_process::{Span, SpanKind, TraceContext};
use baton_proto::v1::{Account, Timing};
use baton_tenancy::Call;
use http::{HeaderMap, header::CONTENT_LENGTH};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    App, EndedBy, GenerateError, Owner, RequestEnd, RequestHead, RequestWatch,
    api_error::ApiError,
    completion::End,
    metrics::{FinishLabels, Handles, RequestLabels, gen_ai},
    request::GenerateJob,
    run::ChoiceEvent,
    spans,
    upstream::Used,
};

/// A request that failed before anything of its answer was shown.
pub(crate) struct Unanswered(Box<(GenerateError, RequestRecord)>);

impl Unanswered {
    pub(crate) fn new(error: GenerateError, record: RequestRecord) -> Self {
        Self(Box::new((error, record)))
    }

    pub(crate) fn into_parts(self) -> (GenerateError, RequestRecord) {
        *self.0
    }
}

/// A request that was refused before anything but its headers was read. Whose it was is not told: who has no good key could say anything.
pub(crate) fn note_refused(
    app: &App,
    request_id: &str,
    endpoint: &'static str,
    request: &Request,
    error: &ApiError,
) {
    let (status, outcome) = (error.status.as_u16(), error.outcome());
    app.metrics.requests.get_or_create(&RequestLabels { endpoint, status, outcome }).inc();
    let nothing = HeaderMap::new();
    let announced = request.headers().get(CONTENT_LENGTH).and_then(|bytes| bytes.to_str().ok()?.parse().ok());
    let bytes = announced.unwrap_or_default();
    let head = RequestHead { is_understood: false, adapter: None, owner: None, headers: &nothing, bytes };
    if let Some(watch) = app.generator.watch(&head) {
        watch.ended(&RequestEnd::refused(status));
    }
    tracing::info!(request_id, endpoint, status, outcome, error = error.body.message, "request");
}

/// The account of one request. Dropped before anybody said how the request ended, it ended because the client went away.
pub(crate) struct RequestRecord {
    pub(crate) request_id: String,
    pub(crate) arrived: Instant,
    pub(crate) prompt_tokens: u64,
    pub(crate) completion_tokens: u64,
    /// The adapter that was asked for in place of the model.
    pub(crate) adapter: Option<String>,
    pub(crate) is_stream: bool,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    /// What the key of its sender is asked, and told of it.
    pub(crate) call: Call,
    metrics: Arc<Handles>,
    endpoint: &'static str,
    pub(crate) span: Span,
    choices: u32,
    n: u32,
    permits: Vec<OwnedSemaphorePermit>,
    first_token: Option<Duration>,
    progress: Vec<Progress>,
    workers: Workers,
    timing: Option<Timing>,
    finish: Option<&'static str>,
    status: u16,
    outcome: &'static str,
    error: Option<String>,
    watch: Option<Box<dyn RequestWatch>>,
    ended: EndedBy,
    /// Who served it, if not our own workers.
    upstream: Option<String>,
}

/// Of one completion.
#[derive(Clone, Debug, Default)]
struct Progress {
    last_tokens_at: Option<Instant>,
    cached_tokens: u64,
}

#[derive(Default)]
struct Workers {
    prefill: String,
    decode: String,
    fallback: String,
}

/// nginx's status for "the client closed the connection".
const CLIENT_GONE: u16 = 499;

impl RequestRecord {
    pub(crate) fn new(
        request_id: String,
        endpoint: &'static str,
        caller: &TraceContext,
        call: Call,
        metrics: Arc<Handles>,
    ) -> Self {
        metrics.running.get_or_create(metrics.model()).inc();
        let mut span = Span::begin(gen_ai::operation(endpoint), SpanKind::Server, caller);
        spans::begin(&mut span, &request_id, endpoint);
        Self {
            request_id,
            arrived: Instant::now(),
            prompt_tokens: 0,
            completion_tokens: 0,
            adapter: None,
            is_stream: false,
            request_bytes: 0,
            response_bytes: 0,
            call,
            metrics,
            endpoint,
            span,
            choices: 0,
            n: 1,
            permits: Vec::new(),
            first_token: None,
            progress: Vec::new(),
            workers: Workers::default(),
            timing: None,
            finish: None,
            status: CLIENT_GONE,
            outcome: "cancelled",
            error: None,
            watch: None,
            ended: EndedBy::Client,
            upstream: None,
        }
    }

    /// Has it followed by whom `watch` names, unless somebody does.
    pub(crate) fn watch_by(
        &mut self,
        watch: impl FnOnce(&RequestHead<'_>) -> Option<Box<dyn RequestWatch>>,
        is_understood: bool,
        owner: Option<&Owner>,
        headers: &HeaderMap,
    ) {
        if self.watch.is_none() {
            let (adapter, bytes) = (self.adapter.as_deref(), self.request_bytes);
            self.watch = watch(&RequestHead { is_understood, adapter, owner, headers, bytes });
        }
    }

    /// Tells the span what is asked for.
    pub(crate) fn describe(&mut self, job: &GenerateJob, max_tokens: u32) {
        if self.span.is_recorded() {
            let model = self.model().to_owned();
            spans::describe(&mut self.span, self.endpoint, &model, job, max_tokens);
        }
    }

    /// The places that this request takes, until it is over.
    pub(crate) fn hold(&mut self, permit: OwnedSemaphorePermit) {
        self.metrics.inflight.inc_by(i64::try_from(permit.num_permits()).unwrap_or(i64::MAX));
        self.permits.push(permit);
    }

    /// What is to be generated is known now.
    pub(crate) fn begin(&mut self, prompt_tokens: u64, choices: u32, n: u32) {
        self.prompt_tokens = prompt_tokens;
        self.choices = choices;
        self.n = n;
        self.progress = vec![Progress::default(); usize::try_from(choices).unwrap_or(0)];
    }

    pub(crate) fn observe(&mut self, event: &ChoiceEvent, now: Instant) {
        let tokens = event.piece.tokens.len();
        if tokens > 0 {
            self.completion_tokens += tokens as u64;
            self.call.generated(tokens as u64);
            self.first_token.get_or_insert_with(|| now.saturating_duration_since(self.arrived));
            self.observe_tokens(event.index, tokens, now);
        }
        if let Some(begun) = &event.begun {
            self.workers.decode.clone_from(&begun.decode_worker);
            if !begun.fallback.is_empty() {
                self.workers.fallback.clone_from(&begun.fallback);
            }
        }
        if let Some(account) = &event.account {
            self.observe_account(event.index, account);
        }
        if let Some(end) = &event.piece.end {
            self.observe_end(end);
        }
    }

    /// It goes to `upstream`, and `why`, if it was meant to be served here. What workers made of it is no part of its answer.
    pub(crate) fn sent_on(&mut self, upstream: &str, why: String) {
        self.upstream = Some(upstream.to_owned());
        self.workers = Workers { fallback: why, ..Workers::default() };
        (self.completion_tokens, self.first_token, self.timing) = (0, None, None);
        self.progress.clear();
    }

    /// The tokens that the upstream counted.
    pub(crate) fn used_elsewhere(&mut self, used: Used) {
        (self.prompt_tokens, self.completion_tokens) = (used.prompt, used.output);
        self.call.used(used.prompt, used.cached, used.output);
    }

    /// The upstream's answer was passed on, with its status.
    pub(crate) fn relayed(&mut self, status: u16) {
        self.status = status;
        (self.outcome, self.ended) =
            if status < 400 { ("ok", EndedBy::Answer) } else { ("invalid", EndedBy::Error(status)) };
        self.call.ends_as(self.status, self.outcome);
    }

    pub(crate) fn succeed(&mut self) {
        (self.status, self.outcome, self.ended) = (200, "ok", EndedBy::Answer);
        self.call.ends_as(self.status, self.outcome);
    }

    /// `is_mid_stream`: the status had been sent before.
    pub(crate) fn fail(&mut self, error: &ApiError, is_mid_stream: bool) {
        self.status = if is_mid_stream { 200 } else { error.status.as_u16() };
        self.outcome = error.outcome();
        self.ended = EndedBy::Error(error.status.as_u16());
        self.error = Some(error.body.message.clone());
        self.call.ends_as(self.status, error.body.code.unwrap_or(self.outcome));
    }

    /// Prompt tokens that were not computed. The completions of one prompt share its cached part: it counts once.
    pub(crate) fn cached_tokens(&self) -> u64 {
        let n = usize::try_from(self.n).unwrap_or(usize::MAX).max(1);
        self.progress.iter().step_by(n).map(|progress| progress.cached_tokens).sum()
    }

    fn progress_of(&mut self, index: u32) -> Option<&mut Progress> {
        self.progress.get_mut(usize::try_from(index).ok()?)
    }

    /// The worker's own figure, or ours when a stop string ended the completion before the worker gave one.
    fn decode_time(&self, timing: &Timing) -> Duration {
        let last = self.progress.iter().filter_map(|progress| progress.last_tokens_at).max();
        match (timing.decode_us, self.first_token, last) {
            (0, Some(first), Some(last)) => last.saturating_duration_since(self.arrived + first),
            (us, ..) => Duration::from_micros(us),
        }
    }

    fn observe_account(&mut self, index: u32, account: &Account) {
        if let Some(progress) = self.progress_of(index) {
            progress.cached_tokens = u64::from(account.cached_prompt_tokens);
        }
        self.workers.prefill.clone_from(&account.prefill_worker);
        if !account.fallback.is_empty() {
            self.workers.fallback.clone_from(&account.fallback);
        }
        self.timing = account.timing.or(self.timing);
    }

    fn observe_tokens(&mut self, index: u32, tokens: usize, now: Instant) {
        let Some(progress) = self.progress_of(index) else { return };
        match progress.last_tokens_at.replace(now) {
            None => {
                let since = now.saturating_duration_since(self.arrived).as_secs_f64();
                self.metrics.ttft.get_or_create(self.metrics.model()).observe(since);
            }
            Some(before) => {
                let each = now.saturating_duration_since(before) / u32::try_from(tokens).unwrap_or(u32::MAX);
                self.metrics.observe_itl(each, tokens);
            }
        }
    }

    fn observe_end(&mut self, end: &End) {
        self.finish = Some(end.reason());
        let labels =
            FinishLabels { model_name: self.metrics.model_name().to_owned(), finished_reason: end.reason() };
        self.metrics.success.get_or_create(&labels).inc();
    }

    /// What it asked for, as it is shown.
    fn model(&self) -> &str {
        self.adapter.as_deref().unwrap_or(self.metrics.model_name())
    }

    /// The status of the error that ended it.
    fn error_type(&self) -> Option<String> {
        match self.ended {
            EndedBy::Error(status) => Some(status.to_string()),
            EndedBy::Answer | EndedBy::Client => None,
        }
    }

    fn end(&self) -> RequestEnd {
        RequestEnd {
            way: self.ended,
            is_stream: self.is_stream,
            first_token: self.first_token,
            response_bytes: self.response_bytes,
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.cached_tokens(),
            output_tokens: self.completion_tokens,
        }
    }

    fn end_span(&mut self) {
        if !self.span.is_recorded() {
            return;
        }
        let ended = spans::Ended {
            way: self.ended,
            end: self.end(),
            finish: self.finish,
            first_token: self.first_token,
            error: self.error.clone(),
            prefill_worker: std::mem::take(&mut self.workers.prefill),
            decode_worker: std::mem::take(&mut self.workers.decode),
        };
        spans::end(&mut self.span, ended);
    }

    fn log(&self, total: Duration) {
        let timing = self.timing.unwrap_or_default();
        tracing::info!(
            request_id = self.request_id,
            endpoint = self.endpoint,
            adapter = self.adapter,
            tenant = self.call.tenant().name(),
            status = self.status,
            outcome = self.outcome,
            finish = self.finish.unwrap_or("none"),
            prompt_tokens = self.prompt_tokens,
            cached_tokens = self.cached_tokens(),
            completion_tokens = self.completion_tokens,
            choices = self.choices,
            queue_ms = millis(Duration::from_micros(timing.queue_us)),
            prefill_ms = millis(Duration::from_micros(timing.prefill_us)),
            transfer_ms = millis(Duration::from_micros(timing.transfer_us)),
            decode_wait_ms = millis(Duration::from_micros(timing.decode_wait_us)),
            first_token_ms = millis(self.first_token.unwrap_or_default()),
            decode_ms = millis(self.decode_time(&timing)),
            total_ms = millis(total),
            prefill_worker = self.workers.prefill,
            decode_worker = self.workers.decode,
            fallback = self.workers.fallback,
            upstream = self.upstream,
            traceparent = self.span.context().traceparent(),
            error = self.error,
            "request"
        );
    }
}

/// With microseconds, and no more: log lines are for people.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        let total = self.arrived.elapsed();
        self.call.cached(self.cached_tokens());
        let model = self.metrics.model();
        self.metrics.running.get_or_create(model).dec();
        let permits: usize = self.permits.iter().map(OwnedSemaphorePermit::num_permits).sum();
        self.metrics.inflight.dec_by(i64::try_from(permits).unwrap_or(i64::MAX));
        if self.upstream.is_none() {
            self.metrics.prompt_tokens.get_or_create(model).inc_by(self.prompt_tokens);
            self.metrics.generation_tokens.get_or_create(model).inc_by(self.completion_tokens);
        }
        if !self.workers.fallback.is_empty() {
            self.metrics.fallbacks.inc();
        }
        if self.outcome == "ok" && self.upstream.is_none() {
            self.metrics.e2e.get_or_create(model).observe(total.as_secs_f64());
        }
        let labels = RequestLabels { endpoint: self.endpoint, status: self.status, outcome: self.outcome };
        self.metrics.requests.get_or_create(&labels).inc();
        if self.ended != EndedBy::Client {
            let status = self.error_type();
            self.metrics.gen_ai.observe(&gen_ai::Ended {
                operation: gen_ai::operation(self.endpoint),
                model: self.model(),
                error: status.as_deref(),
                total,
                first_token: self.first_token,
                output_tokens: self.completion_tokens / u64::from(self.choices.max(1)),
            });
        }
        if let Some(watch) = self.watch.take() {
            watch.ended(&self.end());
        }
        self.log(total);
        self.end_span();
    }
}
