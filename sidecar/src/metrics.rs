//! What the sidecar counts.

use std::sync::atomic::AtomicU64;

use baton_process::Metrics;
use baton_proto::v1::FailureKind;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
};

use crate::control::{Cause, Outcome, Plan};

/// Seconds, from a millisecond to a minute.
const SECONDS: [f64; 15] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];

/// Metrics of the requests.
#[derive(Clone)]
pub(crate) struct SidecarMetrics {
    pub(crate) in_flight: Gauge,
    requests: Family<OutcomeLabels, Counter>,
    fallbacks: Family<CauseLabels, Counter>,
    retries: Family<CauseLabels, Counter>,
    mismatches: Counter<u64, AtomicU64>,
    handover_seconds: Histogram,
    first_token_seconds: Histogram,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabels {
    reason: &'static str,
}

impl SidecarMetrics {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let this = Self {
            in_flight: Gauge::default(),
            requests: Family::default(),
            fallbacks: Family::default(),
            retries: Family::default(),
            mismatches: Counter::default(),
            handover_seconds: Histogram::new(SECONDS),
            first_token_seconds: Histogram::new(SECONDS),
        };
        metrics.register(|registry| {
            let r = registry.sub_registry_with_prefix("baton_sidecar");
            r.register("requests_in_flight", "Requests being served", this.in_flight.clone());
            r.register("requests", "Requests ended, by how", this.requests.clone());
            r.register(
                "fallbacks",
                "Requests that the decode worker prefilled because no prefill worker served, by the last one's reason",
                this.fallbacks.clone(),
            );
            r.register(
                "prefill_retries",
                "Prefill workers tried because the one before did not serve, by its reason",
                this.retries.clone(),
            );
            r.register(
                "first_token_mismatches",
                "Repeated prefills that gave another first token than the one already sent: a worker computes wrongly",
                this.mismatches.clone(),
            );
            r.register(
                "handover_seconds",
                "First token at the sidecar to sequence runnable on the decode worker",
                this.handover_seconds.clone(),
            );
            r.register(
                "first_token_seconds",
                "Request's arrival to its first token sent on",
                this.first_token_seconds.clone(),
            );
        });
        this
    }

    /// Counts a request that ended.
    pub(crate) fn ended(&self, plan: &Plan, outcome: Outcome) {
        self.count(outcome);
        let record = plan.record();
        self.mismatches.inc_by(u64::from(record.first_token_mismatch));
        if let Some(handover) = record.handover {
            self.handover_seconds.observe(handover.as_secs_f64());
        }
        if let Some(first_token_at) = record.first_token_at {
            self.first_token_seconds.observe(first_token_at.as_secs_f64());
        }
        // A setback is followed by a further try, except the last one's when none was left.
        let retries = plan.tries().saturating_sub(1);
        for (index, setback) in record.setbacks.iter().enumerate() {
            let labels = CauseLabels { reason: setback.cause.name() };
            if index < retries {
                self.retries.get_or_create(&labels).inc();
            } else if plan.is_local() {
                self.fallbacks.get_or_create(&labels).inc();
            }
        }
    }

    /// Counts a request that was refused before it began.
    pub(crate) fn count(&self, outcome: Outcome) {
        self.requests.get_or_create(&OutcomeLabels { outcome: outcome.name() }).inc();
    }
}

impl Outcome {
    /// Its label.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Finished(_) => "finished",
            Self::Cancelled => "cancelled",
            Self::Failed(FailureKind::Invalid) => "invalid",
            Self::Failed(FailureKind::Overloaded) => "overloaded",
            Self::Failed(FailureKind::Unavailable) => "unavailable",
            Self::Failed(FailureKind::Deadline) => "deadline",
            Self::Failed(FailureKind::Internal | FailureKind::Unspecified) => "internal",
        }
    }
}

impl Cause {
    /// Its label.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PrefillUnreachable => "prefill_unreachable",
            Self::PrefillFailed => "prefill_failed",
            Self::PrefillLost => "prefill_lost",
            Self::PrefillSilent => "prefill_silent",
            Self::PrefillProtocol => "prefill_protocol",
            Self::TransferFailed => "transfer_failed",
            Self::HandoverLate => "handover_late",
        }
    }
}
