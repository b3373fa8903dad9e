//! An upstream's answer that came in one piece.

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header::CONTENT_TYPE};

use super::{Upstream, Used, forward::Forward, meter};
use crate::record::RequestRecord;

/// Says who served a request.
const SERVED_BY: HeaderName = HeaderName::from_static("x-baton-served-by");

pub(super) fn respond(
    forward: &Forward,
    status: StatusCode,
    kind: Option<HeaderValue>,
    body: Bytes,
    mut record: RequestRecord,
) -> Response {
    let outcome = if status.is_success() { "served" } else { "refused" };
    forward.metrics.ended(&forward.upstream.name, outcome);
    // Of an answer that does not say, what is known of its prompt.
    let unsaid =
        Used { prompt: if status.is_success() { record.prompt_tokens } else { 0 }, ..Used::default() };
    record.used_elsewhere(meter::usage(&body).unwrap_or(unsaid));
    record.relayed(status.as_u16());
    with_head(&forward.upstream, status, kind, Body::from(body))
}

/// Nothing of the upstream's own headers but what its body is.
pub(super) fn with_head(
    upstream: &Upstream,
    status: StatusCode,
    kind: Option<HeaderValue>,
    body: Body,
) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, kind.unwrap_or(HeaderValue::from_static("application/json")));
    if let Ok(name) = HeaderValue::from_str(&format!("upstream {}", upstream.name)) {
        headers.insert(SERVED_BY, name);
    }
    response
}
