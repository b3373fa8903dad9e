//! What the scheduler counts: its front's metrics, and those of the fleet and of placement.

use std::sync::Arc;

use baton_front::FrontMetrics;
use baton_process::Metrics;
use baton_proto::v1::Role;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

const PREFIX: &str = "baton_scheduler";

/// Handles to every metric of the scheduler; cheap to clone.
#[derive(Clone)]
pub(crate) struct SchedulerMetrics(Arc<Handles>);

pub(crate) struct Handles {
    pub(crate) front: FrontMetrics,
    pub(crate) retries: Counter,
    placements: Family<PlacementLabels, Counter>,
    workers: Family<RoleLabels, Gauge>,
    pairs: Family<StateLabels, Gauge>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PlacementLabels {
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

impl SchedulerMetrics {
    /// Registers everything, for the model shown as `model_name`.
    pub(crate) fn new(metrics: &Metrics, model_name: &str, max_inflight: u32) -> Self {
        let handles = Handles {
            front: FrontMetrics::new(metrics, PREFIX, model_name, max_inflight),
            retries: Counter::default(),
            placements: Family::default(),
            workers: Family::default(),
            pairs: Family::default(),
        };
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

    /// A worker has left for good.
    pub(crate) fn forget(&self, role: Role, worker: &str) {
        self.placements.remove(&PlacementLabels { role: role_label(role), worker: worker.to_owned() });
    }

    /// A completion was placed on `worker`.
    pub(crate) fn count_placement(&self, role: Role, worker: &str) {
        let labels = PlacementLabels { role: role_label(role), worker: worker.to_owned() };
        self.placements.get_or_create(&labels).inc();
    }
}

impl std::ops::Deref for SchedulerMetrics {
    type Target = Handles;

    fn deref(&self) -> &Handles {
        &self.0
    }
}

impl Handles {
    fn register(&self, metrics: &Metrics) {
        metrics.register(|registry| {
            let own = registry.sub_registry_with_prefix(PREFIX);
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
        });
    }
}
