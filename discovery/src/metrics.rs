//! What the sources and the reading of load export. Labels are few and bounded: no endpoint is one.

use std::{fmt, time::Instant};

use baton_process::Metrics;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{MetricType, counter::Counter, family::Family, gauge::ConstGauge},
};

use crate::{Source, State};

/// Of a file.
#[derive(Clone, Debug, Default)]
pub(crate) struct FileMetrics {
    pub(crate) reloads: Counter,
    pub(crate) failures: Counter,
}

/// Which kind of Kubernetes object.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct ResourceLabels {
    pub(crate) resource: &'static str,
}

/// Of watches.
#[derive(Clone, Debug, Default)]
pub(crate) struct WatchMetrics {
    pub(crate) lists: Family<ResourceLabels, Counter>,
    pub(crate) failures: Family<ResourceLabels, Counter>,
}

impl FileMetrics {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let own = Self::default();
        metrics.register(|registry| {
            let (name, help) =
                ("baton_discovery_file_reloads", "Times that the list of endpoints was read again");
            registry.register(name, help, own.reloads.clone());
            let help = "Times that a changed list of endpoints was wrong or unreadable, and the old one kept";
            registry.register("baton_discovery_file_reload_failures", help, own.failures.clone());
        });
        own
    }
}

impl WatchMetrics {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let own = Self::default();
        metrics.register(|registry| {
            let help = "Times that Kubernetes objects were listed whole: at first, and when a watch can't be resumed";
            registry.register("baton_discovery_lists", help, own.lists.clone());
            let help = "Times that listing or watching Kubernetes objects failed";
            registry.register("baton_discovery_watch_failures", help, own.failures.clone());
        });
        own
    }
}

/// Exports each source's endpoints by state, and its age.
#[derive(Debug)]
struct SourceCollector(Vec<Source>);

/// Registers metrics of what these sources hold: how many endpoints in which state, and for how long nobody has said that it is still so.
/// Once a process, with all its sources.
pub fn export(sources: Vec<Source>, metrics: &Metrics) {
    metrics.register(|registry| registry.register_collector(Box::new(SourceCollector(sources))));
}

impl Collector for SourceCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Endpoints that a source knows, by state";
        let mut family =
            encoder.encode_descriptor("baton_discovery_endpoints", help, None, MetricType::Gauge)?;
        for source in &self.0 {
            let set = source.snapshot();
            for (state, word) in
                [(State::Ready, "ready"), (State::NotReady, "not_ready"), (State::Draining, "draining")]
            {
                let count = set.endpoints().iter().filter(|endpoint| endpoint.state == state).count();
                let labels = [("source", source.name()), ("state", word)];
                ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX))
                    .encode(family.encode_family(&labels)?)?;
            }
        }
        let help =
            "For how long nobody has said that a source's set is still true; no series: nothing is known yet";
        let mut family =
            encoder.encode_descriptor("baton_discovery_age_seconds", help, None, MetricType::Gauge)?;
        let now = Instant::now();
        for source in &self.0 {
            if let Some(age) = source.age(now) {
                ConstGauge::new(age.as_secs_f64())
                    .encode(family.encode_family(&[("source", source.name())])?)?;
            }
        }
        Ok(())
    }
}
