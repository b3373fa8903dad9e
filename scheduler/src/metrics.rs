//! The front's metrics. `vllm:*` names where they mean the same as on a vLLM server, so that its dashboards work.

use std::{sync::Arc, time::Duration};

use baton_process::Metrics;
use baton_proto::v1::Role;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Unit,
};

/// Handles to every metric of the front; cheap to clone.
#[derive(Clone)]
pub(crate) struct SchedulerMetrics(Arc<Handles>);

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
    pub(crate) retries: Counter,
    pub(crate) fallbacks: Counter,
    pub(crate) tokenize: Histogram,
    pub(crate) placements: Family<PlacementLabels, Counter>,
    workers: Family<RoleLabels, Gauge>,
    pairs: Family<StateLabels, Gauge>,
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

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct PlacementLabels {
    role: &'static str,
    worker: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RoleLabels {
    role: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

fn role_label(role: Role) -> &'static str {
    if role == Role::Prefill { "prefill" } else { "decode" }
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

impl SchedulerMetrics {
    /// Registers everything, for the model shown as `model_name`.
    pub(crate) fn new(metrics: &Metrics, model_name: &str, max_inflight: u32) -> Self {
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
            retries: Counter::default(),
            fallbacks: Counter::default(),
            tokenize: token_buckets(),
            placements: Family::default(),
            workers: Family::default(),
            pairs: Family::default(),
            model: ModelLabels { model_name: model_name.to_owned() },
        };
        handles.inflight_limit.set(i64::from(max_inflight));
        handles.running.get_or_create(&handles.model).set(0);
        handles.register(metrics);
        Self(Arc::new(handles))
    }

    pub(crate) fn set_workers(&self, role: Role, count: usize) {
        self.workers
            .get_or_create(&RoleLabels { role: role_label(role) })
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(crate) fn set_pairs(&self, state: &'static str, count: usize) {
        self.pairs.get_or_create(&StateLabels { state }).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A completion was placed on `worker`.
    pub(crate) fn count_placement(&self, role: Role, worker: &str) {
        let labels = PlacementLabels { role: role_label(role), worker: worker.to_owned() };
        self.placements.get_or_create(&labels).inc();
    }

    pub(crate) fn observe_itl(&self, each: Duration, tokens: usize) {
        let histogram = self.itl.get_or_create(&self.model);
        for _ in 0..tokens {
            histogram.observe(each.as_secs_f64());
        }
    }
}

impl std::ops::Deref for SchedulerMetrics {
    type Target = Handles;

    fn deref(&self) -> &Handles {
        &self.0
    }
}

impl Handles {
    pub(crate) fn model(&self) -> &ModelLabels {
        &self.model
    }

    pub(crate) fn model_name(&self) -> &str {
        &self.model.model_name
    }

    fn register(&self, metrics: &Metrics) {
        metrics.register(|registry| {
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
            seconds(registry, "vllm:inter_token_latency", "Between tokens of a completion", &self.itl);
            seconds(registry, "vllm:e2e_request_latency", "From the request's arrival to its end", &self.e2e);
        });
        metrics.register(|registry| {
            let help = "Requests that were not served as first intended; each one's log line says why";
            registry.register("baton_fallbacks", help, self.fallbacks.clone());
            let own = registry.sub_registry_with_prefix("baton_scheduler");
            own.register("requests", "Requests by how they ended", self.requests.clone());
            own.register("inflight_completions", "Completions in flight", self.inflight.clone());
            own.register(
                "inflight_completions_limit",
                "Completions that may be in flight",
                self.inflight_limit.clone(),
            );
            own.register("retries", "Completions tried on another decode worker", self.retries.clone());
            own.register(
                "placements",
                "Completions placed on a worker; of prefill workers, the first choice counts",
                self.placements.clone(),
            );
            own.register("workers", "Workers in the fleet", self.workers.clone());
            own.register(
                "pairs",
                "Prefill and decode workers, each with each: only connected ones are given requests",
                self.pairs.clone(),
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
