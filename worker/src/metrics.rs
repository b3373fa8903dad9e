//! What requests are counted in; the names are vLLM's, which dashboards and pickers read.

use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

use baton_process::Metrics;
use prometheus_client::metrics::histogram::Histogram;

const REQUEST_SECONDS: [f64; 16] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];
const TOKEN_SECONDS: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5];

/// Latencies of requests on one worker; clones share them.
#[derive(Clone, Debug)]
pub struct RequestMetrics {
    time_to_first_token: Histogram,
    inter_token_latency: Histogram,
    e2e_request_latency: Histogram,
}

/// Observes the tokens of one request as they are sent.
#[derive(Debug)]
pub struct TokenClock {
    metrics: RequestMetrics,
    arrival: Instant,
    last_token: Option<Instant>,
}

impl RequestMetrics {
    /// Registers them for a model.
    pub fn register(metrics: &Metrics, model_name: &str) -> Self {
        let this = Self {
            time_to_first_token: Histogram::new(REQUEST_SECONDS),
            inter_token_latency: Histogram::new(TOKEN_SECONDS),
            e2e_request_latency: Histogram::new(REQUEST_SECONDS),
        };
        metrics.register(|registry| {
            let label = (Cow::Borrowed("model_name"), Cow::Owned(model_name.to_owned()));
            let registry = registry.sub_registry_with_label(label);
            for (name, help, histogram) in [
                (
                    "vllm:time_to_first_token_seconds",
                    "Request's arrival on this worker to its first token, computed here or handed over",
                    &this.time_to_first_token,
                ),
                (
                    "vllm:inter_token_latency_seconds",
                    "Between tokens of a request",
                    &this.inter_token_latency,
                ),
                (
                    "vllm:e2e_request_latency_seconds",
                    "Request's arrival on this worker to its end here",
                    &this.e2e_request_latency,
                ),
            ] {
                registry.register(name, help, histogram.clone());
            }
        });
        this
    }

    /// For a request that arrives now.
    pub fn start(&self) -> TokenClock {
        TokenClock { metrics: self.clone(), arrival: Instant::now(), last_token: None }
    }
}

impl TokenClock {
    /// `count` tokens were made since the last call.
    pub fn tokens(&mut self, count: usize) {
        let Some(count) = u32::try_from(count).ok().filter(|count| *count > 0) else { return };
        let now = Instant::now();
        let observe = |histogram: &Histogram, length: Duration| histogram.observe(length.as_secs_f64());
        // Tokens that come together share the time since the last ones; those that come with the first came at once.
        let (gaps, each) = match self.last_token.replace(now) {
            None => {
                observe(&self.metrics.time_to_first_token, now - self.arrival);
                (count - 1, Duration::ZERO)
            }
            Some(last) => (count, (now - last) / count),
        };
        for _ in 0..gaps {
            observe(&self.metrics.inter_token_latency, each);
        }
    }

    /// The request came to its end.
    pub fn ended(&self) {
        self.metrics.e2e_request_latency.observe(self.arrival.elapsed().as_secs_f64());
    }

    /// Since the request's arrival.
    pub fn elapsed(&self) -> Duration {
        self.arrival.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(batches: &[usize], gaps: usize) {
        let metrics = Metrics::new();
        let mut clock = RequestMetrics::register(&metrics, "m").start();
        batches.iter().for_each(|count| clock.tokens(*count));
        let text = metrics.encode();
        for (name, count) in [("inter_token_latency", gaps), ("time_to_first_token", 1)] {
            let line = format!("vllm:{name}_seconds_count{{model_name=\"m\"}} {count}\n");
            assert!(text.contains(&line), "no {line} in {text}");
        }
    }

    #[test]
    fn each_token_after_the_first_has_a_gap_however_they_come() {
        check(&[1, 1, 1, 1], 3);
        check(&[1, 3], 3);
        check(&[3, 1], 3);
        check(&[4, 0], 3);
    }
}
