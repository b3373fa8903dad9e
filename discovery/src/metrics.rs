//! What the sources and the reading of load export. Labels are few and bounded: no endpoint is one.

use std::{
    fmt,
    time::{Duration, Instant},
};

use baton_process::Metrics;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{
        MetricType,
        counter::Counter,
        family::Family,
        gauge::ConstGauge,
        histogram::{Histogram, exponential_buckets},
    },
};

use crate::{
    Source, State,
    scrape::{Loads, ScrapeError},
};

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

/// What came of asking a server for its load.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct OutcomeLabels {
    outcome: &'static str,
}

/// Of reading load.
#[derive(Clone, Debug)]
pub(crate) struct ScrapeMetrics {
    outcomes: Family<OutcomeLabels, Counter>,
    seconds: Histogram,
    bytes: Counter,
}

/// Exports how many targets answer, and the oldest load.
#[derive(Debug)]
struct LoadCollector(Loads);

impl ScrapeMetrics {
    pub(crate) fn register(metrics: &Metrics, loads: Loads) -> Self {
        let seconds = Histogram::new(exponential_buckets(0.0005, 2.0, 12));
        let own = Self { outcomes: Family::default(), seconds, bytes: Counter::default() };
        metrics.register(|registry| {
            let help = "Times that a server was asked for its load, by what came of it";
            registry.register("baton_discovery_scrapes", help, own.outcomes.clone());
            let help = "Time that a server took to tell its load, or to fail";
            registry.register("baton_discovery_scrape_seconds", help, own.seconds.clone());
            registry.register("baton_discovery_scrape_bytes", "Bytes of metrics pages", own.bytes.clone());
            registry.register_collector(Box::new(LoadCollector(loads)));
        });
        own
    }

    pub(crate) fn note(&self, error: Option<&ScrapeError>, took: Duration, bytes: u64) {
        self.outcomes.get_or_create(&OutcomeLabels { outcome: error.map_or("ok", ScrapeError::word) }).inc();
        self.seconds.observe(took.as_secs_f64());
        self.bytes.inc_by(bytes);
    }
}

impl Collector for LoadCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let summary = self.0.summary(Instant::now());
        let help = "Servers whose load is read, by whether they answer";
        let mut family =
            encoder.encode_descriptor("baton_discovery_targets", help, None, MetricType::Gauge)?;
        let counts = [
            ("unknown", summary.unknown),
            ("healthy", summary.healthy),
            ("silent", summary.silent),
            ("unhealthy", summary.unhealthy),
        ];
        for (health, count) in counts {
            ConstGauge::new(i64::from(count)).encode(family.encode_family(&[("health", health)])?)?;
        }
        let help = "Age of the oldest load that any server told last; no series: none did";
        if let Some(oldest) = summary.oldest {
            let one = encoder.encode_descriptor(
                "baton_discovery_oldest_load_seconds",
                help,
                None,
                MetricType::Gauge,
            )?;
            ConstGauge::new(oldest.as_secs_f64()).encode(one)?;
        }
        Ok(())
    }
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
