//! An upstream's stream, passed on as it comes.

use std::io;

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, StatusCode, header::CACHE_CONTROL};
use tokio::time::{Instant, timeout_at};

use super::{
    answer,
    forward::{Failed, Forward, describe},
    meter::Meter,
};
use crate::{api_error::ApiError, record::RequestRecord};

/// A stream being passed on. Dropped when the client goes away, and with it the call.
struct Relay {
    forward: Forward,
    first: Option<Bytes>,
    rest: reqwest::Response,
    meter: Meter,
    record: RequestRecord,
    /// For metrics, as it stands.
    outcome: &'static str,
}

pub(super) fn respond(
    forward: Forward,
    first: Bytes,
    rest: reqwest::Response,
    record: RequestRecord,
) -> Response {
    let upstream = forward.upstream.clone();
    let relay =
        Relay { forward, first: Some(first), rest, meter: Meter::default(), record, outcome: "cancelled" };
    let body = stream::unfold(Some(relay), |relay| async move {
        let mut relay = relay?;
        let (bytes, is_over) = relay.next().await?;
        Some((bytes, (!is_over).then_some(relay)))
    });
    let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
    let mut response = answer::with_head(&upstream, StatusCode::OK, Some(kind), Body::from_stream(body));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

impl Relay {
    /// What comes next, and whether it is the last.
    async fn next(&mut self) -> Option<(io::Result<Bytes>, bool)> {
        let broke_off = match self.chunk().await {
            Ok(Some(bytes)) => {
                self.meter.read(&bytes);
                return Some((Ok(bytes), false));
            }
            Ok(None) if !self.meter.has_failed() => {
                self.outcome = "served";
                self.record.relayed(200);
                return None;
            }
            Ok(None) => {
                self.outcome = "failed";
                self.record.fail(&ApiError::bad_upstream("the upstream told of an error".to_owned()), true);
                return None;
            }
            Err(reason) => reason,
        };
        self.outcome = "broke_off";
        let error = ApiError::from(Failed::broke_off(&self.forward.upstream.name, broke_off));
        self.record.fail(&error, true);
        let last = if self.meter.is_between_lines() {
            Ok(error.to_sse().into())
        } else {
            // No event can be said within another: the connection breaks off, too.
            Err(io::Error::other(error.body.message))
        };
        Some((last, true))
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, String> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        let until = (Instant::now() + self.forward.upstream.idle_timeout).min(self.forward.deadline);
        match timeout_at(until, self.rest.chunk()).await {
            Ok(chunk) => chunk.map_err(describe),
            Err(_) => Err("it fell silent".to_owned()),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.forward.metrics.ended(&self.forward.upstream.name, self.outcome);
        let used = self.meter.used(self.record.prompt_tokens);
        self.record.used_elsewhere(used);
    }
}
