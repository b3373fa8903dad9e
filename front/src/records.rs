//! What operators ask of requests that have been: decisions on them, and the traffic that they were.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, State},
    http::{Uri, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use futures::stream;
use serde_json::{Value, json};

use crate::{App, api_error::ApiError};

/// How many requests an answer to `/v1/traffic` has.
const REQUESTS: &str = "x-baton-traffic-requests";
/// How far back, in seconds, all requests are in it.
const SECONDS: &str = "x-baton-traffic-seconds";
/// What is asked for without `seconds`.
const AN_HOUR: Duration = Duration::from_secs(3_600);

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/decisions", get(decisions))
        .route("/v1/decisions/{*id}", get(decision))
        .route("/v1/traffic", get(traffic))
}

/// The last decisions about where requests go.
async fn decisions(State(app): State<Arc<App>>) -> Json<Value> {
    const MOST: usize = 100;
    Json(json!({ "object": "list", "data": app.generator.decisions(MOST) }))
}

async fn decision(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    app.generator.decision(&id).map(Json).ok_or_else(|| ApiError::no_decision(&id))
}

/// The requests of the last time, as a trace in the project's own format.
async fn traffic(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, ApiError> {
    let span = span(uri.query().unwrap_or_default())?;
    let traffic = app.generator.traffic(span).ok_or_else(ApiError::no_traffic)?;
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
