//! Errors as HTTP: OpenAI's JSON shape and the right status. This is the one place where a fact becomes a status.

use std::time::Duration;

use axum::{
    Json,
    http::{HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use baton_proto::v1::FailureKind;
use baton_tenancy::Refusal;
use baton_tokenizer::RenderError;
use serde::Serialize;

use crate::{AdapterRefused, GenerateError, fields::InvalidField};

/// The answer to a request that was not served.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) body: ErrorBody,
    headers: Vec<(&'static str, String)>,
}

/// OpenAI's error object.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ErrorBody {
    pub(crate) message: String,
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    pub(crate) param: Option<String>,
    pub(crate) code: Option<&'static str>,
}

/// `{"error": {...}}`.
#[derive(Serialize)]
pub(crate) struct Envelope<'a> {
    pub(crate) error: &'a ErrorBody,
}

const INVALID: &str = "invalid_request_error";
const OVERLOADED: &str = "overloaded";
const UNAVAILABLE: &str = "service_unavailable_error";

/// Long enough for a worker to join or a request to end, short enough not to idle.
const RETRY_SOON: Duration = Duration::from_secs(1);

impl ApiError {
    fn new(
        status: StatusCode,
        kind: &'static str,
        code: Option<&'static str>,
        message: impl Into<String>,
    ) -> Self {
        let body = ErrorBody { message: message.into(), kind, param: None, code };
        Self { status, body, headers: Vec::new() }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID, None, message)
    }

    pub(crate) fn param(mut self, param: &str) -> Self {
        self.body.param = Some(param.to_owned());
        self
    }

    fn retry_after(mut self, after: Duration) -> Self {
        self.headers = vec![("retry-after", after.as_secs().max(1).to_string())];
        self
    }

    pub(crate) fn invalid_json(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID, Some("invalid_json"), message)
    }

    pub(crate) fn context_length(message: String, param: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID, Some("context_length_exceeded"), message).param(param)
    }

    pub(crate) fn model_not_found(asked: &str, served: &[String]) -> Self {
        let message = format!("The model `{asked}` does not exist here; served: {}", served.join(", "));
        Self::new(StatusCode::NOT_FOUND, INVALID, Some("model_not_found"), message).param("model")
    }

    pub(crate) fn no_decision(id: &str) -> Self {
        let message = format!(
            "There is no decision about request {id}: it is not known here, or was long ago; /v1/decisions lists the last ones"
        );
        Self::new(StatusCode::NOT_FOUND, INVALID, Some("decision_not_found"), message)
    }

    pub(crate) fn no_traffic() -> Self {
        let message =
            "No record of traffic is kept here: schedulers keep one, unless they are told --traffic-mib 0";
        Self::new(StatusCode::NOT_FOUND, INVALID, Some("no_traffic_record"), message)
    }

    pub(crate) fn no_model(path: &str) -> Self {
        let message = format!(
            "There is nothing at {path}: this scheduler has no --model and only picks servers for gateways; send requests to the gateway"
        );
        Self::new(StatusCode::NOT_FOUND, INVALID, Some("no_model"), message)
    }

    pub(crate) fn unknown_path(path: &str) -> Self {
        let message =
            format!("There is nothing at {path}; see /v1/models, /v1/chat/completions, /v1/completions");
        Self::new(StatusCode::NOT_FOUND, INVALID, Some("unknown_url"), message)
    }

    pub(crate) fn method_not_allowed(method: &str, path: &str) -> Self {
        let message = format!("{path} does not take {method}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, INVALID, Some("method_not_allowed"), message)
    }

    pub(crate) fn body_too_large(limit_bytes: u64) -> Self {
        let message = format!("The request body is larger than the limit of {limit_bytes} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID, Some("body_too_large"), message)
    }

    pub(crate) fn body_timeout(limit: Duration) -> Self {
        let message = format!("The request body did not arrive within {} s", limit.as_secs());
        Self::new(StatusCode::REQUEST_TIMEOUT, INVALID, Some("body_timeout"), message)
    }

    pub(crate) fn overloaded(max_inflight: u32) -> Self {
        let message =
            format!("All {max_inflight} places for completions in flight are taken; try again soon");
        Self::busy(message)
    }

    pub(crate) fn busy(message: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", Some(OVERLOADED), message)
            .retry_after(RETRY_SOON)
    }

    pub(crate) fn deadline(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout_error", Some("deadline_exceeded"), message)
    }

    pub(crate) fn bad_upstream(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "server_error", Some("upstream_failed"), message)
    }

    /// `is_limited`: by its rate, rather than for want of anybody.
    pub(crate) fn busy_upstream(message: String, is_limited: bool, after: Option<Duration>) -> Self {
        let error = match is_limited {
            true => Self::busy(message),
            false => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, Some("upstream_failed"), message)
            }
        };
        error.retry_after(after.unwrap_or(RETRY_SOON))
    }

    pub(crate) fn not_ready(missing: &[String]) -> Self {
        let message = format!("not ready: {}", missing.join("; "));
        Self::new(StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, Some("not_ready"), message)
            .retry_after(RETRY_SOON)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", Some("internal_error"), message)
    }

    /// A short word for logs and metrics.
    pub(crate) fn outcome(&self) -> &'static str {
        match self.status {
            StatusCode::TOO_MANY_REQUESTS if self.body.code == Some(OVERLOADED) => OVERLOADED,
            StatusCode::TOO_MANY_REQUESTS => "limited",
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "denied",
            StatusCode::GATEWAY_TIMEOUT => "deadline",
            status if status.is_client_error() => "invalid",
            StatusCode::SERVICE_UNAVAILABLE => "unavailable",
            _ => "failed",
        }
    }

    /// The error as one SSE event. OpenAI's clients raise an `APIError` on it.
    pub(crate) fn to_sse(&self) -> String {
        let json = serde_json::to_string(&Envelope { error: &self.body }).unwrap_or_default();
        format!("data: {json}\n\n")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(Envelope { error: &self.body })).into_response();
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let error = Self::new(status, refusal.kind(), Some(refusal.code()), refusal.to_string());
        let error = if matches!(refusal, Refusal::Model { .. }) { error.param("model") } else { error };
        Self { headers: refusal.headers(), ..error }
    }
}

impl From<InvalidField> for ApiError {
    fn from(error: InvalidField) -> Self {
        Self::invalid(error.to_string()).param(&error.param)
    }
}

impl From<RenderError> for ApiError {
    fn from(error: RenderError) -> Self {
        Self::invalid(error.to_string()).param("messages")
    }
}

impl From<AdapterRefused> for ApiError {
    fn from(refused: AdapterRefused) -> Self {
        match refused {
            AdapterRefused::NotReady(missing) => Self::not_ready(&[missing]),
            AdapterRefused::BadName(message) => Self::invalid(message).param("lora_name"),
            AdapterRefused::BadPath(message) => Self::invalid(message).param("lora_path"),
            AdapterRefused::NotFound(message) => {
                Self::new(StatusCode::NOT_FOUND, INVALID, None, message).param("lora_name")
            }
        }
    }
}

impl From<GenerateError> for ApiError {
    fn from(error: GenerateError) -> Self {
        let message = error.to_string();
        let unavailable = |code| {
            Self::new(StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, Some(code), message.clone())
                .retry_after(RETRY_SOON)
        };
        match &error {
            GenerateError::NoDecodeWorker(_) => unavailable("no_decode_worker"),
            GenerateError::NeverFits(_) => Self::context_length(message, "max_tokens"),
            GenerateError::NoSuchAdapter(_) => {
                Self::new(StatusCode::NOT_FOUND, INVALID, Some("model_not_found"), message).param("model")
            }
            GenerateError::WorkerLost(_) | GenerateError::CallBroken(_) => unavailable("worker_lost"),
            GenerateError::DeadlinePassed(_) => Self::deadline(message),
            GenerateError::BadHeader(_) => Self::invalid(message),
            GenerateError::NotNow(not_now) if not_now.is_nobody => {
                unavailable("no_decode_worker").retry_after(not_now.retry_after)
            }
            GenerateError::NotNow(not_now) => Self::busy(message).retry_after(not_now.retry_after),
            GenerateError::Stopping(_) => unavailable("stopping"),
            GenerateError::WorkerFailed(failed) => match failed.kind {
                FailureKind::Invalid => Self::invalid(message),
                FailureKind::Overloaded => Self::busy(message),
                FailureKind::Unavailable => unavailable("worker_lost"),
                FailureKind::Deadline => Self::deadline(message),
                FailureKind::Internal | FailureKind::Unspecified => Self::internal(message),
            },
        }
    }
}
