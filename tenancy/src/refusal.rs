//! Why a request is not served, as data: a front makes its answer of it.

use std::time::{Duration, SystemTime};

use crate::limit::{Limited, whole_seconds};

/// A request that is not served. The texts are for the client; none of them holds a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No key came.
    #[error(
        "no API key came with the request: send it as `Authorization: Bearer KEY`, or set OPENAI_API_KEY"
    )]
    NoKey,
    /// There is no such key.
    #[error(
        "this API key is not known here: check that it is whole and of this server, or ask its operator for one"
    )]
    UnknownKey,
    /// The key was good until then.
    #[error("the API key {name:?} expired at {}: ask for a new one", humantime::format_rfc3339_seconds(*.at))]
    Expired {
        /// Its name.
        name: String,
        /// When.
        at: SystemTime,
    },
    /// The operator has switched the key off.
    #[error("the API key {name:?} is disabled: ask this server's operator")]
    Disabled {
        /// Its name.
        name: String,
    },
    /// The key is for other models.
    #[error("the API key {name:?} may not use the model {model:?}; it may use {allowed}")]
    Model {
        /// The key's name.
        name: String,
        /// The model or adapter asked for.
        model: String,
        /// Those that it may use, as a list.
        allowed: String,
    },
    /// The key is none of an operator.
    #[error("the API key {name:?} is not for this path: only keys with `admin: true` are")]
    NoAdmin {
        /// The key's name.
        name: String,
    },
    /// A limit was reached.
    #[error("{limited} (API key {name:?})")]
    Limit {
        /// The key's name.
        name: String,
        /// Which one.
        limited: Limited,
        /// `x-ratelimit-…` headers: how much is left of each.
        left: Vec<(&'static str, String)>,
    },
    /// Each request must be in the audit log, and it cannot be written.
    #[error(
        "requests cannot be recorded at the moment, and none is served unrecorded: try again later, or tell the operator"
    )]
    NoAudit,
}

impl Refusal {
    /// HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Self::NoKey | Self::UnknownKey | Self::Expired { .. } | Self::Disabled { .. } => 401,
            Self::Model { .. } | Self::NoAdmin { .. } => 403,
            Self::Limit { .. } => 429,
            Self::NoAudit => 503,
        }
    }

    /// `error.type` of OpenAI's error object.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NoKey | Self::UnknownKey | Self::Expired { .. } | Self::Disabled { .. } => {
                "authentication_error"
            }
            Self::Model { .. } | Self::NoAdmin { .. } => "permission_error",
            Self::Limit { .. } => "rate_limit_error",
            Self::NoAudit => "service_unavailable_error",
        }
    }

    /// `error.code` of OpenAI's error object; also the `reason` in metrics and the `outcome` in the audit log.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoKey => "missing_api_key",
            Self::UnknownKey => "invalid_api_key",
            Self::Expired { .. } => "expired_api_key",
            Self::Disabled { .. } => "disabled_api_key",
            Self::Model { .. } => "model_not_allowed",
            Self::NoAdmin { .. } => "admin_key_needed",
            Self::Limit { limited: Limited::Requests { .. }, .. } => "requests_per_minute_exceeded",
            Self::Limit { limited: Limited::Tokens { .. } | Limited::PromptTooLong { .. }, .. } => {
                "tokens_per_minute_exceeded"
            }
            Self::Limit { limited: Limited::Concurrent { .. }, .. } => "concurrent_requests_exceeded",
            Self::NoAudit => "audit_unavailable",
        }
    }

    /// When to try again, if that is of use.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Limit { limited, .. } => limited.retry_after(),
            Self::NoAudit => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    /// Headers of the answer.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = match (self.status(), self.retry_after()) {
            (401, _) => vec![("www-authenticate", "Bearer".to_owned())],
            (_, Some(after)) => vec![("retry-after", whole_seconds(after).to_string())],
            // OpenAI's clients would repeat a 429 by themselves.
            (429, None) => vec![("x-should-retry", "false".to_owned())],
            _ => Vec::new(),
        };
        if let Self::Limit { left, .. } = self {
            headers.extend_from_slice(left);
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(limited: Limited) -> Refusal {
        Refusal::Limit { name: "alice".to_owned(), limited, left: Vec::new() }
    }

    #[test]
    fn each_refusal_has_its_status_and_says_when_to_come_back() {
        let after = Duration::from_millis(1500);
        let requests = limit(Limited::Requests { per_minute: 60, after });
        assert_eq!(
            requests.to_string(),
            "the limit of 60 requests a minute is reached; try again in 2 s (API key \"alice\")"
        );
        let too_long = limit(Limited::PromptTooLong { per_minute: 10, asked: 11 });
        for (refusal, status, header) in [
            (Refusal::NoKey, 401, Some(("www-authenticate", "Bearer"))),
            (Refusal::UnknownKey, 401, Some(("www-authenticate", "Bearer"))),
            (requests, 429, Some(("retry-after", "2"))),
            (limit(Limited::Concurrent { limit: 4 }), 429, Some(("retry-after", "1"))),
            (too_long, 429, Some(("x-should-retry", "false"))),
            (Refusal::NoAudit, 503, Some(("retry-after", "1"))),
            (Refusal::Model { name: "alice".into(), model: "m".into(), allowed: "n".into() }, 403, None),
            (Refusal::NoAdmin { name: "alice".into() }, 403, None),
        ] {
            assert_eq!(refusal.status(), status);
            let expected: Vec<_> = header.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
            assert_eq!(refusal.headers(), expected, "{refusal}");
        }
    }
}
