//! What becomes of lines.

use baton_process::Metrics;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

/// Handles; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct LogMetrics {
    pub(crate) written: Counter,
    pub(crate) lost: Family<ReasonLabels, Counter>,
    pub(crate) queued: Gauge,
    pub(crate) failures: Counter,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct ReasonLabels {
    pub(crate) reason: &'static str,
}

impl LogMetrics {
    /// Under names that begin with `prefix`; `log` is what texts call it, such as "the audit log".
    pub fn register(metrics: &Metrics, prefix: &'static str, log: &str) -> Self {
        let this = Self::default();
        metrics.register(|registry| {
            let own = registry.sub_registry_with_prefix(prefix);
            own.register("records", format!("Lines written to {log}"), this.written.clone());
            own.register("lost", format!("Lines that are not in {log}"), this.lost.clone());
            own.register("queued", "Lines that wait to be written", this.queued.clone());
            let help = format!("Writes to {log} that failed; they are repeated");
            own.register("write_failures", help, this.failures.clone());
        });
        this
    }

    /// So many lines are not in the log, for another reason than a full queue or disk.
    pub fn lose(&self, reason: &'static str, lines: u64) {
        self.lost.get_or_create(&ReasonLabels { reason }).inc_by(lines);
    }
}
