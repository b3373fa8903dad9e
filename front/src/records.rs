//! What operators ask of requests that have been: decisions on them, by one or by many, and the traffic that they were.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Request, State},
    http::{Uri, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use futures::stream;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{api_error::ApiError, body, operators::OperatorState};

/// How many requests an answer to `/v1/traffic` has.
const REQUESTS: &str = "x-baton-traffic-requests";
/// How far back, in seconds, all requests are in it.
const SECONDS: &str = "x-baton-traffic-seconds";
/// What is asked for without `seconds`.
const AN_HOUR: Duration = Duration::from_secs(3_600);

pub(crate) fn routes() -> Router<Arc<OperatorState>> {
    Router::new()
        .route("/v1/decisions", get(decisions).post(decisions_on))
        .route("/v1/decisions/{*id}", get(decision))
        .route("/v1/traffic", get(traffic))
}

/// The last decisions about where requests go.
async fn decisions(State(state): State<Arc<OperatorState>>) -> Json<Value> {
    const MOST: usize = 100;
    Json(json!({ "object": "list", "data": state.generator.decisions(MOST) }))
}

/// Requests that are asked about in one call.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    ids: Vec<String>,
}

/// The decisions on some requests, as far as they are known, in the order in which they are asked for.
async fn decisions_on(
    State(state): State<Arc<OperatorState>>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    const MOST: usize = 1_000;
    let (parts, body) = request.into_parts();
    let body = body::read_bytes(&parts.headers, body, &state.limits).await?;
    let Wanted { ids } = serde_json::from_slice(&body).map_err(|error| {
        let message = format!("The body is not {{\"ids\": [\"…\", …]}}: {error}");
        ApiError::invalid(message).param("ids")
    })?;
    if ids.len() > MOST {
        let message = format!("There are {} ids; ask about {MOST} at most at a time", ids.len());
        return Err(ApiError::invalid(message).param("ids"));
    }
    let known: Vec<Value> = ids.iter().filter_map(|id| state.generator.decision(id)).collect();
    Ok(Json(json!({ "object": "list", "data": known })))
}

async fn decision(
    State(state): State<Arc<OperatorState>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    state.generator.decision(&id).map(Json).ok_or_else(|| ApiError::no_decision(&id))
}

/// The requests of the last time, as a trace in the project's own format.
async fn traffic(State(state): State<Arc<OperatorState>>, uri: Uri) -> Result<Response, ApiError> {
    let span = span(uri.query().unwrap_or_default())?;
    let traffic = state.generator.traffic(span).ok_or_else(ApiError::no_traffic)?;
    let headers = [
        (CONTENT_TYPE.as_str(), "application/jsonl".to_owned()),
        (REQUESTS, traffic.requests.to_string()),
        (SECONDS, format!("{:.3}", traffic.span.as_secs_f64())),
    ];
    let body = Body::from_stream(stream::iter(traffic.lines.map(Ok::<_, Infallible>)));
    Ok((headers, body).into_response())
}

/// `seconds=3600`, or nothing.
fn span(query: &str) -> Result<Duration, ApiError> {
    let mut span = AN_HOUR;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let seconds = pair.strip_prefix("seconds=").and_then(|seconds| seconds.parse().ok());
        span = seconds
            .filter(|&seconds: &f64| seconds > 0.0)
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .ok_or_else(|| {
                let message = format!("`{pair}` is not understood: use ?seconds=3600, or any number above 0");
                ApiError::invalid(message).param("seconds")
            })?;
    }
    Ok(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_a_number_of_seconds_or_an_hour() {
        let of = |query: &str| span(query).ok();
        assert_eq!((of(""), of("seconds=0.5")), (Some(AN_HOUR), Some(Duration::from_millis(500))));
        for bad in
            ["seconds=", "seconds=0", "seconds=-1", "seconds=NaN", "seconds=1e300", "minutes=1", "seconds"]
        {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
