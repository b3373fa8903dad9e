//! A request on its way to an upstream.

use std::{sync::Arc, time::Duration};

use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use http::{
    StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER},
};
use serde_json::{Map, Value};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{HOP, Upstream, Upstreams, answer, metrics::UpstreamMetrics, relay};
use crate::{GenerateError, api_error::ApiError, record::RequestRecord, wire::Shape};

/// Answers that are not streamed are kept until they are whole.
const MOST_ANSWER_BYTES: usize = 32 << 20;
/// Before the first repetition; twice as long before the next.
const REPEAT_AFTER: Duration = Duration::from_millis(100);

/// A request that an upstream may serve.
pub(crate) struct Forward {
    pub(super) upstream: Arc<Upstream>,
    pub(super) metrics: UpstreamMetrics,
    shape: Shape,
    /// As the client calls it.
    model: String,
    body: Bytes,
    pub(super) deadline: Instant,
}

/// The beginning of an answer, or all of it.
pub(super) enum Begun {
    Whole { status: StatusCode, kind: Option<http::HeaderValue>, body: Bytes },
    Stream { first: Bytes, rest: reqwest::Response },
}

/// Why an upstream gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the upstream {name} {reason}")]
pub(crate) struct Failed {
    name: String,
    reason: Reason,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Reason {
    #[error("could not be reached: {0}")]
    Unreachable(String),
    #[error("broke off: {0}")]
    BrokeOff(String),
    #[error("did not answer in time")]
    Late,
    #[error("answered {status}")]
    Busy { status: StatusCode, retry_after: Option<Duration> },
    /// The operator's to repair: a wrong key, address or model.
    #[error("does not take what it is sent: it answered {0}; look at its key, URL and model")]
    Misconfigured(StatusCode),
}

impl Upstreams {
    /// A request for `upstream`, to be answered by `deadline`.
    pub(crate) fn forward(
        &self,
        upstream: &Arc<Upstream>,
        shape: Shape,
        model: &str,
        body: Bytes,
        deadline: std::time::Instant,
    ) -> Forward {
        let (upstream, metrics, model) = (upstream.clone(), self.metrics.clone(), model.to_owned());
        Forward { upstream, metrics, shape, model, body, deadline: deadline.into() }
    }
}

impl Forward {
    /// Answers a request for a model that only the upstream has.
    pub(crate) async fn respond(self, mut record: RequestRecord) -> Response {
        record.sent_on(&self.upstream.name, String::new());
        match self.begin(&record.request_id).await {
            Ok(begun) => self.answer(begun, record),
            Err(failed) => {
                let error = ApiError::from(failed);
                record.fail(&error, false);
                error.into_response()
            }
        }
    }

    /// Answers a request that could not be served here for `error`, which the client is told if the upstream can't, either.
    pub(crate) async fn respond_instead(self, error: GenerateError, mut record: RequestRecord) -> Response {
        match self.begin(&record.request_id).await {
            Ok(begun) => {
                record.sent_on(&self.upstream.name, error.to_string());
                self.answer(begun, record)
            }
            Err(_) => {
                let error = ApiError::from(error);
                record.fail(&error, false);
                error.into_response()
            }
        }
    }

    fn answer(self, begun: Begun, record: RequestRecord) -> Response {
        match begun {
            Begun::Whole { status, kind, body } => answer::respond(&self, status, kind, body, record),
            Begun::Stream { first, rest } => relay::respond(self, first, rest, record),
        }
    }

    /// Sends it, again if that may help, until an answer begins.
    async fn begin(&self, request_id: &str) -> Result<Begun, Failed> {
        let begun = match timeout_at(self.deadline, self.repeat(request_id)).await {
            Ok(begun) => begun,
            Err(_) => Err(Reason::Late),
        };
        begun.map_err(|reason| {
            self.metrics.ended(&self.upstream.name, reason.outcome());
            let failed = Failed { name: self.upstream.name.clone(), reason };
            tracing::warn!(request_id, %failed, "no answer from an upstream");
            failed
        })
    }

    async fn repeat(&self, request_id: &str) -> Result<Begun, Reason> {
        let body = self.rewritten();
        let mut wait = REPEAT_AFTER;
        for _ in 0..self.upstream.retries {
            match self.attempt(body.clone(), request_id).await {
                Err(reason) if reason.may_pass() => {
                    tracing::debug!(request_id, upstream = self.upstream.name, %reason, "asking again");
                }
                begun => return begun,
            }
            sleep(wait).await;
            wait *= 2;
            self.metrics.retried(&self.upstream.name);
        }
        self.attempt(body, request_id).await
    }

    async fn attempt(&self, body: Bytes, request_id: &str) -> Result<Begun, Reason> {
        let started = Instant::now();
        let answer_by = started + self.upstream.answer_timeout;
        let response = timeout_at(answer_by, self.request(body, request_id).send()).await;
        let mut response = response.map_err(|_| Reason::Late)?.map_err(|error| {
            if error.is_timeout() { Reason::Late } else { Reason::Unreachable(describe(error)) }
        })?;
        let status = response.status();
        check(status, &response)?;
        let kind = response.headers().get(CONTENT_TYPE).cloned();
        let is_stream = kind.as_ref().is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        let begun = if is_stream && status.is_success() {
            // Until its first bytes are here, it may be had elsewhere.
            let first = timeout_at(answer_by, response.chunk()).await.map_err(|_| Reason::Late)?;
            let first = first.map_err(|error| Reason::BrokeOff(describe(error)))?;
            let first = first.ok_or_else(|| Reason::BrokeOff("an empty stream".to_owned()))?;
            Begun::Stream { first, rest: response }
        } else {
            Begun::Whole { status, kind, body: self.read(response).await? }
        };
        self.metrics.began(&self.upstream.name, started.elapsed());
        Ok(begun)
    }

    fn request(&self, body: Bytes, request_id: &str) -> reqwest::RequestBuilder {
        let path = match self.shape {
            Shape::Chat => "chat/completions",
            Shape::Completion => "completions",
        };
        let base = self.upstream.url.as_str().trim_end_matches('/');
        let request = self.upstream.client.post(format!("{base}/{path}"));
        let request = request
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json, text/event-stream")
            .header("x-request-id", request_id)
            .header(HOP, "1")
            .body(body);
        match &self.upstream.key {
            Some(key) => request.header(AUTHORIZATION, key.clone()),
            None => request,
        }
    }

    async fn read(&self, mut response: reqwest::Response) -> Result<Bytes, Reason> {
        let mut body = BytesMut::new();
        loop {
            let chunk =
                timeout(self.upstream.idle_timeout, response.chunk()).await.map_err(|_| Reason::Late)?;
            match chunk.map_err(|error| Reason::BrokeOff(describe(error)))? {
                None => return Ok(body.freeze()),
                Some(chunk) if body.len() + chunk.len() > MOST_ANSWER_BYTES => {
                    return Err(Reason::BrokeOff(format!("more than {MOST_ANSWER_BYTES} bytes")));
                }
                Some(chunk) => body.extend_from_slice(&chunk),
            }
        }
    }

    /// The client's body, with the upstream's name of the model.
    fn rewritten(&self) -> Bytes {
        // It was read as an object before; if it were none, the upstream would say so.
        let mut fields: Map<String, Value> = serde_json::from_slice(&self.body).unwrap_or_default();
        let model = self.upstream.send_model.as_ref().unwrap_or(&self.model);
        fields.insert("model".to_owned(), model.as_str().into());
        serde_json::to_vec(&fields).unwrap_or_default().into()
    }
}

/// Whether the answer is one for the client.
fn check(status: StatusCode, response: &reqwest::Response) -> Result<(), Reason> {
    const CLIENTS_FAULT: [StatusCode; 5] = [
        StatusCode::BAD_REQUEST,
        StatusCode::CONFLICT,
        StatusCode::PAYLOAD_TOO_LARGE,
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        StatusCode::UNPROCESSABLE_ENTITY,
    ];
    let is_busy = matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
    if status.is_success() || CLIENTS_FAULT.contains(&status) {
        Ok(())
    } else if is_busy || status.is_server_error() {
        let retry_after =
            response.headers().get(RETRY_AFTER).and_then(|after| after.to_str().ok()?.parse().ok());
        Err(Reason::Busy { status, retry_after: retry_after.map(Duration::from_secs) })
    } else {
        Err(Reason::Misconfigured(status))
    }
}

/// Without the address, which is nobody's business, and with what caused it.
pub(super) fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    let causes = std::iter::successors(std::error::Error::source(&error), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

impl Failed {
    pub(super) fn broke_off(upstream: &str, how: String) -> Self {
        Self { name: upstream.to_owned(), reason: Reason::BrokeOff(how) }
    }
}

impl Reason {
    /// Whether it may be gone in a moment.
    fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::BrokeOff(_) => true,
            Self::Busy { status, .. } => *status != StatusCode::TOO_MANY_REQUESTS,
            Self::Late | Self::Misconfigured(_) => false,
        }
    }

    /// For metrics.
    fn outcome(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::BrokeOff(_) => "broke_off",
            Self::Late => "late",
            Self::Busy { .. } => "busy",
            Self::Misconfigured(_) => "misconfigured",
        }
    }
}

impl From<Failed> for ApiError {
    fn from(failed: Failed) -> Self {
        let message = failed.to_string();
        match failed.reason {
            Reason::Unreachable(_) | Reason::BrokeOff(_) | Reason::Misconfigured(_) => {
                Self::bad_upstream(message)
            }
            Reason::Late => Self::deadline(message),
            Reason::Busy { status, retry_after } => {
                Self::busy_upstream(message, status == StatusCode::TOO_MANY_REQUESTS, retry_after)
            }
        }
    }
}
