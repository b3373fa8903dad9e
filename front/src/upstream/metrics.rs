//! What became of requests that were sent on.

use std::time::Duration;

use baton_process::Metrics;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Unit,
};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    upstream: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabels {
    upstream: String,
    outcome: &'static str,
}

/// Handles; names of upstreams are the file's.
#[derive(Clone)]
pub(super) struct UpstreamMetrics {
    requests: Family<OutcomeLabels, Counter>,
    retries: Family<Labels, Counter>,
    begun: Family<Labels, Histogram>,
}

fn buckets() -> Histogram {
    Histogram::new([0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0])
}

impl Default for UpstreamMetrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            retries: Family::default(),
            begun: Family::new_with_constructor(buckets),
        }
    }
}

impl UpstreamMetrics {
    pub(super) fn register(metrics: &Metrics) -> Self {
        let this = Self::default();
        metrics.register(|registry| {
            let own = registry.sub_registry_with_prefix("baton_upstream");
            own.register("requests", "Requests sent to upstreams, by how they ended", this.requests.clone());
            own.register("retries", "Requests sent to an upstream once more", this.retries.clone());
            let help = "From sending a request to the beginning of the upstream's answer";
            own.register_with_unit("first_byte", help, Unit::Seconds, this.begun.clone());
        });
        this
    }

    pub(super) fn ended(&self, upstream: &str, outcome: &'static str) {
        self.requests.get_or_create(&OutcomeLabels { upstream: upstream.to_owned(), outcome }).inc();
    }

    pub(super) fn retried(&self, upstream: &str) {
        self.retries.get_or_create(&Labels { upstream: upstream.to_owned() }).inc();
    }

    pub(super) fn began(&self, upstream: &str, after: Duration) {
        self.begun.get_or_create(&Labels { upstream: upstream.to_owned() }).observe(after.as_secs_f64());
    }
}
