//! The fields of a JSON object, taken one by one so that errors name them.

use std::time::Duration;

use serde_json::{Map, Value};

use super::error::FieldError;
use crate::distribution::MAX_TOKENS;

/// No trace is longer: 10 years, in ms.
const MAX_MS: f64 = 3650.0 * 24.0 * 3600e3;

pub(super) struct Fields(Map<String, Value>);

impl Fields {
    pub(super) fn of_line(line: &str) -> Result<Self, FieldError> {
        let value =
            serde_json::from_str(line).map_err(|error| FieldError(format!("it is not JSON: {error}")))?;
        Self::of(value)
    }

    pub(super) fn of(value: Value) -> Result<Self, FieldError> {
        match value {
            Value::Object(fields) => Ok(Self(fields)),
            _ => Err(FieldError("it is not a JSON object".into())),
        }
    }

    pub(super) fn has(&self, field: &str) -> bool {
        self.0.contains_key(field)
    }

    /// `null` is the same as nothing.
    pub(super) fn take(&mut self, field: &str) -> Option<Value> {
        self.0.remove(field).filter(|value| !value.is_null())
    }

    /// The next field that was not taken.
    pub(super) fn left(&self) -> Option<&str> {
        self.0.keys().next().map(String::as_str)
    }

    pub(super) fn tokens(&mut self, field: &str) -> Result<Option<u32>, FieldError> {
        self.take(field).map(|value| tokens(field, &value)).transpose()
    }

    pub(super) fn text(&mut self, field: &str) -> Result<Option<String>, FieldError> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(FieldError::new(field, format!("`{}` is not a text", short(&other)))),
        }
    }

    pub(super) fn list(&mut self, field: &str) -> Result<Option<Vec<Value>>, FieldError> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(other) => Err(FieldError::new(field, format!("`{}` is not a list", short(&other)))),
        }
    }

    /// Milliseconds, whole or not.
    pub(super) fn milliseconds(&mut self, field: &str) -> Result<Option<Duration>, FieldError> {
        let Some(value) = self.take(field) else { return Ok(None) };
        match value.as_f64() {
            Some(ms) if (0.0..=MAX_MS).contains(&ms) => Ok(Some(Duration::from_secs_f64(ms / 1e3))),
            _ => Err(FieldError::new(field, format!("`{}` is not a time in ms, from 0", short(&value)))),
        }
    }
}

pub(super) fn missing(field: &str) -> FieldError {
    FieldError::new(field, "it is missing")
}

/// What some traces call 0 tokens is 1: no request has less.
pub(super) fn tokens(field: &str, value: &Value) -> Result<u32, FieldError> {
    match value.as_u64().and_then(|tokens| u32::try_from(tokens).ok()) {
        Some(tokens) if tokens <= MAX_TOKENS => Ok(tokens.max(1)),
        _ => Err(FieldError::new(
            field,
            format!("`{}` is not a number of tokens: a whole number up to {MAX_TOKENS}", short(value)),
        )),
    }
}

pub(super) fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
