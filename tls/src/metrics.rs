//! Metrics of TLS.

use std::time::SystemTime;

use baton_process::Metrics;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

use crate::listener::Spoken;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ListenerLabels {
    listener: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CertificateLabels {
    certificate: &'static str,
}

/// Handles; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsMetrics {
    refused: Family<ListenerLabels, Counter>,
    reloads: Family<OutcomeLabels, Counter>,
    expiry: Family<CertificateLabels, Gauge>,
}

impl TlsMetrics {
    pub(crate) fn register(&self, metrics: &Metrics) {
        metrics.register(|registry| {
            let own = registry.sub_registry_with_prefix("baton_tls");
            own.register("refused_connections", "Connections whose handshake failed", self.refused.clone());
            own.register("reloads", "Changed certificates, taken or found wrong", self.reloads.clone());
            let help = "When the certificate in use ends, in seconds since 1970";
            own.register("certificate_expiry_timestamp_seconds", help, self.expiry.clone());
        });
    }

    pub(crate) fn count_refusal(&self, spoken: Spoken) {
        let listener = if spoken == Spoken::Http { "http" } else { "grpc" };
        self.refused.get_or_create(&ListenerLabels { listener }).inc();
    }

    pub(crate) fn count_reload(&self, is_taken: bool) {
        let outcome = if is_taken { "taken" } else { "refused" };
        self.reloads.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    pub(crate) fn set_expiry(&self, certificate: &'static str, at: Option<SystemTime>) {
        let since = at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        if let Some(seconds) = since.and_then(|since| i64::try_from(since.as_secs()).ok()) {
            self.expiry.get_or_create(&CertificateLabels { certificate }).set(seconds);
        }
    }
}
