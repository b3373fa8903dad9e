//! What a request's headers say about how it is to be served (llm-d's names).

use std::sync::Arc;

use baton_front::{BadHeader, GenerationSpec};
use baton_policy::view::Objective;
use http::HeaderMap;

use crate::{config::Priorities, router::Ask};

const OBJECTIVE: &str = "x-llm-d-inference-objective";
const TENANT: &str = "x-llm-d-inference-fairness-id";
const SESSION: &str = "x-session-id";
const TTFT: &str = "x-llm-d-slo-ttft-ms";
const TPOT: &str = "x-llm-d-slo-tpot-ms";

/// Names come from clients, and are kept: longer ones are cut.
const MOST_NAME_BYTES: usize = 128;
/// An hour.
const MOST_MS: f64 = 3.6e6;

/// `spec`, with what its headers wish.
///
/// # Errors
/// A header that can't be understood.
pub(super) fn ask<'a>(spec: &'a GenerationSpec, priorities: &Priorities) -> Result<Ask<'a>, BadHeader> {
    let headers = &*spec.headers;
    Ok(Ask {
        request_id: &spec.request_id,
        prompt: &spec.prompt,
        max_tokens: u64::from(spec.sampling.max_tokens),
        adapter: spec.adapter.as_deref(),
        cache_salt: spec.cache_salt.as_deref(),
        tenant: Arc::from(text(headers, TENANT).unwrap_or_default()),
        priority: text(headers, OBJECTIVE).map_or(0, |name| priorities.of(name)),
        objective: Objective { ttft_ms: ms(headers, TTFT)?, tpot_ms: ms(headers, TPOT)? },
        session: text(headers, SESSION),
    })
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let value = headers.get(name)?.to_str().ok()?.trim();
    let end = value.floor_char_boundary(MOST_NAME_BYTES);
    Some(&value[..end]).filter(|value| !value.is_empty())
}

fn ms(headers: &HeaderMap, name: &'static str) -> Result<Option<f64>, BadHeader> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let ms = value.to_str().ok().and_then(|value| value.trim().parse::<f64>().ok());
    match ms {
        Some(ms) if ms > 0.0 && ms <= MOST_MS => Ok(Some(ms)),
        _ => Err(BadHeader { name, expected: "milliseconds, such as 500" }),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn numbers_are_milliseconds_or_refused() {
        let of = |value: &'static str| {
            let headers = HeaderMap::from_iter([(TTFT.parse().unwrap(), HeaderValue::from_static(value))]);
            ms(&headers, TTFT).ok()
        };
        assert_eq!(of(" 250 "), Some(Some(250.0)));
        for bad in ["", "0", "-1", "NaN", "inf", "soon", "1e9"] {
            assert_eq!(of(bad), None, "{bad}");
        }
        assert_eq!(ms(&HeaderMap::new(), TTFT).unwrap(), None);
    }

    #[test]
    fn long_names_are_cut() {
        let long = HeaderValue::from_str(&"a".repeat(1_000)).unwrap();
        let headers = HeaderMap::from_iter([(SESSION.parse().unwrap(), long)]);
        assert_eq!(text(&headers, SESSION).unwrap().len(), MOST_NAME_BYTES);
        assert_eq!(text(&headers, TENANT), None);
    }
}
