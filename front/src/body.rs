//! Reading a request's body: bounded in size and time, JSON, an object.

use std::time::Duration;

use axum::{body::Body, http::HeaderMap};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use serde_json::Value;
use tokio::time::timeout;

use crate::{RequestLimits, api_error::ApiError, fields::Fields};

const MOST_DISCARDED_BYTES: usize = 8 << 20;
const DISCARDING: Duration = Duration::from_secs(2);

/// The body's fields.
pub(crate) async fn read_fields(
    headers: &HeaderMap,
    body: Body,
    limits: &RequestLimits,
) -> Result<Fields, ApiError> {
    parse(&read_bytes(headers, body, limits).await?)
}

/// The body as it came.
pub(crate) async fn read_bytes(
    headers: &HeaderMap,
    body: Body,
    limits: &RequestLimits,
) -> Result<Bytes, ApiError> {
    let read = timeout(limits.body_timeout, read(headers, body, limits.max_body_bytes)).await;
    read.map_err(|_| ApiError::body_timeout(limits.body_timeout))?
}

/// Throws away what comes: an answer that overtakes a body would be lost with the connection's reset. A sender who goes on for too
/// long has himself to blame.
pub(crate) async fn discard(body: Body) {
    let mut chunks = body.into_data_stream();
    let mut seen = 0;
    let reading = async {
        while let Some(Ok(chunk)) = chunks.next().await {
            seen += chunk.len();
            if seen > MOST_DISCARDED_BYTES {
                return;
            }
        }
    };
    // As far as it went.
    let _ = timeout(DISCARDING, reading).await;
}

async fn read(headers: &HeaderMap, body: Body, limit: u64) -> Result<Bytes, ApiError> {
    let announced = headers.get("content-length").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let mut is_over = announced.is_some_and(|bytes| bytes > limit);
    let mut seen: u64 = 0;
    let mut bytes = BytesMut::new();
    let mut chunks = body.into_data_stream();
    // An answer sent before the body was read would be lost with the connection's reset: a body that is somewhat too
    // large is read on, and thrown away.
    while let Some(chunk) = chunks.next().await {
        let chunk =
            chunk.map_err(|error| ApiError::invalid(format!("The request body broke off: {error}")))?;
        seen += chunk.len() as u64;
        is_over |= seen > limit;
        if !is_over {
            bytes.extend_from_slice(&chunk);
        } else if seen > limit.saturating_mul(4) {
            break;
        } else {
            bytes = BytesMut::new();
        }
    }
    if is_over { Err(ApiError::body_too_large(limit)) } else { Ok(bytes.freeze()) }
}

/// Its fields.
pub(crate) fn parse(bytes: &[u8]) -> Result<Fields, ApiError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| ApiError::invalid_json(format!("The body is not UTF-8: {error}")))?;
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => Ok(Fields(fields)),
        Ok(other) => {
            let found = super::fields::describe(&other);
            Err(ApiError::invalid_json(format!("The body must be a JSON object, and is {found}")))
        }
        Err(error) => Err(ApiError::invalid_json(format!("The body is not valid JSON: {error}"))),
    }
}
