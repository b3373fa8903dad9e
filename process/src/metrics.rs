//! The process's metrics, in Prometheus' text format.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::{encoding::text::encode, registry::Registry};

/// Registry shared by the parts of a process; cheap to clone.
///
/// prometheus-client appends `_total` to counters itself: register a counter without that suffix.
#[derive(Clone, Default)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
}

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

    /// The text that `/metrics` answers with.
    pub fn encode(&self) -> String {
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
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn a_registered_counter_is_encoded_with_its_value() {
        let metrics = Metrics::new();
        let requests = Counter::<u64>::default();
        metrics.register(|registry| registry.register("requests", "Requests served", requests.clone()));
        requests.inc_by(3);
        assert!(metrics.encode().contains("requests_total 3"));
    }
}
