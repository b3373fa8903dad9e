//! A model server's metrics as OpenTelemetry's GenAI conventions have them, spelled as Prometheus spells OpenTelemetry's names.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

/// Who provides the model, as the conventions ask.
pub(crate) const PROVIDER: &str = "baton";

/// Handles; cheap to clone.
#[derive(Clone)]
pub(crate) struct GenAi {
    duration: Family<Labels, Histogram>,
    first_token: Family<Labels, Histogram>,
    per_token: Family<Labels, Histogram>,
}

/// Of one kind of requests.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    gen_ai_operation_name: &'static str,
    gen_ai_provider_name: &'static str,
    gen_ai_request_model: String,
    gen_ai_response_model: String,
    /// Empty for requests that were answered; to Prometheus that is the same as absent.
    error_type: String,
}

/// A request that has ended.
pub(crate) struct Ended<'a> {
    pub(crate) operation: &'static str,
    pub(crate) model: &'a str,
    /// `None`: it was answered.
    pub(crate) error: Option<&'a str>,
    pub(crate) total: Duration,
    pub(crate) first_token: Option<Duration>,
    /// Of one of its completions, on average.
    pub(crate) output_tokens: u64,
}

/// The conventions' name for what a path does.
pub(crate) fn operation(endpoint: &str) -> &'static str {
    if endpoint.ends_with("chat/completions") { "chat" } else { "text_completion" }
}

// The bounds of all three are those that the conventions advise.
impl Default for GenAi {
    fn default() -> Self {
        Self {
            duration: Family::new_with_constructor(|| {
                Histogram::new([
                    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
                ])
            }),
            first_token: Family::new_with_constructor(|| {
                Histogram::new([
                    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5,
                    10.0,
                ])
            }),
            per_token: Family::new_with_constructor(|| {
                Histogram::new([0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5])
            }),
        }
    }
}

impl GenAi {
    pub(super) fn register(&self, registry: &mut Registry) {
        for (name, help, metric) in [
            ("gen_ai_server_request_duration", "From a request's arrival to its end", &self.duration),
            ("gen_ai_server_time_to_first_token", "Of answered requests", &self.first_token),
            (
                "gen_ai_server_time_per_output_token",
                "Mean time between tokens after the first, of answered requests",
                &self.per_token,
            ),
        ] {
            registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
        }
    }

    pub(crate) fn observe(&self, ended: &Ended<'_>) {
        let labels = Labels {
            gen_ai_operation_name: ended.operation,
            gen_ai_provider_name: PROVIDER,
            gen_ai_request_model: ended.model.to_owned(),
            gen_ai_response_model: ended.model.to_owned(),
            error_type: ended.error.unwrap_or_default().to_owned(),
        };
        self.duration.get_or_create(&labels).observe(ended.total.as_secs_f64());
        let (None, Some(first)) = (ended.error, ended.first_token) else { return };
        self.first_token.get_or_create(&labels).observe(first.as_secs_f64());
        if let Some(more) = ended.output_tokens.checked_sub(1).filter(|more| *more > 0) {
            let rest = ended.total.saturating_sub(first).as_secs_f64();
            self.per_token.get_or_create(&labels).observe(rest / more as f64);
        }
    }
}
