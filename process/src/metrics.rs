//! The process's metrics, in Prometheus' text format.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::{encoding::text::encode, registry::Registry};

/// Registry shared by the parts of a process; cheap to clone.
///
/// prometheus-client appends `_total` to counters itself: register a counter without that suffix.
#[derive(Clone, Default)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    updates: Arc<Mutex<Vec<Update>>>,
}

/// Brings gauges up to date.
type Update = Arc<dyn Fn() + Send + Sync>;

impl Metrics {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// A process's, with what is counted of its spans.
    pub fn of_process() -> Self {
        let metrics = Self::new();
        crate::trace::register_trace_metrics(&metrics);
        metrics
    }

    /// Registers metrics: `f` is handed the registry once.
    pub fn register<T>(&self, f: impl FnOnce(&mut Registry) -> T) -> T {
        f(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Has `update` called whenever somebody asks, before the answer is written: for what nobody counts in between.
    pub fn before_each_encode(&self, update: impl Fn() + Send + Sync + 'static) {
        self.updates.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(update));
    }

    /// The text that `/metrics` answers with.
    pub fn encode(&self) -> String {
        // Called without the locks: an update may take others, whose holders register metrics.
        let updates = self.updates.lock().unwrap_or_else(PoisonError::into_inner).clone();
        updates.iter().for_each(|update| update());
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        // Writing to a `String` does not fail; a collector that reports an error leaves what was written so far.
        if let Err(error) = encode(&mut text, &registry) {
            tracing::warn!(%error, "some metrics could not be encoded");
        }
        text
    }
}

/// `Content-Type` of [`Metrics::encode`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::{counter::Counter, gauge::Gauge};

    use super::*;

    #[test]
    fn a_registered_counter_is_encoded_with_its_value() {
        let metrics = Metrics::new();
        let requests = Counter::<u64>::default();
        metrics.register(|registry| registry.register("requests", "Requests served", requests.clone()));
        requests.inc_by(3);
        assert!(metrics.encode().contains("requests_total 3"));
    }

    #[test]
    fn a_gauge_is_brought_up_to_date_each_time_somebody_asks() {
        let metrics = Metrics::new();
        let asked = Gauge::<i64>::default();
        metrics.register(|registry| registry.register("asked", "Times", asked.clone()));
        metrics.clone().before_each_encode(move || {
            asked.inc();
        });
        assert!(metrics.encode().contains("asked 1\n"));
        assert!(metrics.encode().contains("asked 2\n"));
    }
}
