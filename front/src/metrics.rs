//! The front's metrics. `vllm:*` names where they mean the same as on a vLLM server, so that its dashboards work.

pub(crate) mod gen_ai;

use std::{sync::Arc, time::Duration};

use baton_process::Metrics;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Unit,
};

use gen_ai::GenAi;

/// Handles to every metric of the front; cheap to clone.
#[derive(Clone)]
pub struct FrontMetrics(pub(crate) Arc<Handles>);

pub(crate) struct Handles {
    pub(crate) requests: Family<RequestLabels, Counter>,
    pub(crate) success: Family<FinishLabels, Counter>,
    pub(crate) running: Family<ModelLabels, Gauge>,
    pub(crate) prompt_tokens: Family<ModelLabels, Counter>,
    pub(crate) generation_tokens: Family<ModelLabels, Counter>,
    pub(crate) ttft: Family<ModelLabels, Histogram>,
    pub(crate) itl: Family<ModelLabels, Histogram>,
    pub(crate) e2e: Family<ModelLabels, Histogram>,
    pub(crate) inflight: Gauge,
    pub(crate) inflight_limit: Gauge,
    pub(crate) fallbacks: Counter,
    pub(crate) tokenize: Histogram,
    pub(crate) gen_ai: GenAi,
    model: ModelLabels,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct ModelLabels {
    model_name: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    pub(crate) endpoint: &'static str,
    pub(crate) status: u16,
    pub(crate) outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct FinishLabels {
    pub(crate) model_name: String,
    pub(crate) finished_reason: &'static str,
}

fn request_buckets() -> Histogram {
    Histogram::new([
        0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
    ])
}

fn token_buckets() -> Histogram {
    Histogram::new([
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5,
    ])
}

impl FrontMetrics {
    /// Registers everything, for the model shown as `model_name`; what is Baton's own begins with `prefix`.
    pub fn new(metrics: &Metrics, prefix: &str, model_name: &str, max_inflight: u32) -> Self {
        let handles = Handles {
            requests: Family::default(),
            success: Family::default(),
            running: Family::default(),
            prompt_tokens: Family::default(),
            generation_tokens: Family::default(),
            ttft: Family::new_with_constructor(request_buckets),
            itl: Family::new_with_constructor(token_buckets),
            e2e: Family::new_with_constructor(request_buckets),
            inflight: Gauge::default(),
            inflight_limit: Gauge::default(),
            fallbacks: Counter::default(),
            tokenize: token_buckets(),
            gen_ai: GenAi::default(),
            model: ModelLabels { model_name: model_name.to_owned() },
        };
        handles.inflight_limit.set(i64::from(max_inflight));
        handles.running.get_or_create(&handles.model).set(0);
        handles.register(metrics, prefix);
        Self(Arc::new(handles))
    }
}

impl Handles {
    pub(crate) fn observe_itl(&self, each: Duration, tokens: usize) {
        let histogram = self.itl.get_or_create(&self.model);
        for _ in 0..tokens {
            histogram.observe(each.as_secs_f64());
        }
    }

    pub(crate) fn model(&self) -> &ModelLabels {
        &self.model
    }

    pub(crate) fn model_name(&self) -> &str {
        &self.model.model_name
    }

    fn register(&self, metrics: &Metrics, prefix: &str) {
        metrics.register(|registry| {
            self.gen_ai.register(registry);
            registry.register("vllm:num_requests_running", "Requests being served", self.running.clone());
            registry.register(
                "vllm:prompt_tokens",
                "Prompt tokens of ended requests",
                self.prompt_tokens.clone(),
            );
            registry.register("vllm:generation_tokens", "Tokens generated", self.generation_tokens.clone());
            registry.register(
                "vllm:request_success",
                "Completions that came to their end",
                self.success.clone(),
            );
            let seconds =
                |registry: &mut prometheus_client::registry::Registry, name, help, metric: &Family<_, _>| {
                    registry.register_with_unit(name, help, Unit::Seconds, Family::clone(metric));
                };
            seconds(
                registry,
                "vllm:time_to_first_token",
                "From the request's arrival to its first token",
                &self.ttft,
            );
            // The second is what vLLM called it before.
            for name in ["vllm:inter_token_latency", "vllm:time_per_output_token"] {
                seconds(registry, name, "Between tokens of a completion", &self.itl);
            }
            seconds(registry, "vllm:e2e_request_latency", "From the request's arrival to its end", &self.e2e);
        });
        metrics.register(|registry| {
            let help = "Requests that were not served as first intended; each one's log line says why";
            registry.register("baton_fallbacks", help, self.fallbacks.clone());
            let own = registry.sub_registry_with_prefix(prefix);
            own.register("requests", "Requests by how they ended", self.requests.clone());
            own.register("inflight_completions", "Completions in flight", self.inflight.clone());
            own.register(
                "inflight_completions_limit",
                "Completions that may be in flight",
                self.inflight_limit.clone(),
            );
            own.register_with_unit(
                "tokenize",
                "Rendering and encoding a prompt",
                Unit::Seconds,
                self.tokenize.clone(),
            );
        });
    }
}
