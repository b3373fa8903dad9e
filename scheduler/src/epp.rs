//! What endpoint pickers count, under the names that existing dashboards read.
//!
//! llm-d's picker calls its metrics `llm_d_epp_*`; before, they were `inference_extension_*`, `inference_objective_*`, `inference_pool_*` and
//! `inference_model_*` (Gateway API Inference Extension). A request is counted once, in [`tallies`], whether it came by the built-in front or by a
//! gateway; [`names`] is the one table of what that is called where, and [`collector`] writes it down when somebody asks.
//!
//! # Invariants
//! - Labels are bounded: models are those that are served, tenants the first that came, priorities those that the operator has named, workers those
//!   that are here. All others are `other`, and what a worker had goes with it.
//! - Older names show the same numbers, summed over the labels that they lack.

mod collector;
mod flow;
mod names;
mod pool;
mod samples;
mod spread;
mod tallies;
#[cfg(test)]
mod tests;
mod underway;
mod who;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use baton_process::Metrics;

pub(crate) use flow::{Outcome, Waiting};
pub(crate) use tallies::Placement;
pub(crate) use underway::{Answered, Underway};
pub(crate) use who::{Asked, Who};

use crate::router::Router;
use collector::EppCollector;
use tallies::Tallies;
use who::Labels;

/// Counts; shared by all that route.
#[derive(Debug)]
pub(crate) struct Epp {
    labels: Mutex<Labels>,
    tallies: Mutex<Tallies>,
}

impl Epp {
    /// For the model of these names; the first is shown.
    pub(crate) fn new(model_names: Vec<String>) -> Self {
        Self { labels: Mutex::new(Labels::new(model_names)), tallies: Mutex::default() }
    }

    /// Shows all of it, as of a pool of this name, `NAMESPACE/NAME` or `NAME`.
    pub(crate) fn register(self: &Arc<Self>, metrics: &Metrics, router: Arc<Router>, pool: &str) {
        let collector = EppCollector::new(self.clone(), router, pool);
        metrics.register(|registry| registry.register_collector(Box::new(collector)));
    }

    /// Whose request it is, as labels say.
    pub(crate) fn who(&self, asked: Asked<'_>, tenant: &str, priority: i32) -> Who {
        self.labels.lock().unwrap_or_else(PoisonError::into_inner).who(asked, tenant, priority)
    }

    /// A request of `bytes` has come.
    pub(crate) fn begin(self: &Arc<Self>, who: Who, bytes: u64) -> Underway {
        Underway::begin(self.clone(), who, bytes)
    }

    /// A request is sent somewhere.
    pub(crate) fn placed(&self, who: &Who, placement: &Placement<'_>) {
        self.lock().placed(who, placement);
    }

    /// Nobody could serve a request.
    pub(crate) fn unplaced(&self, who: &Who) {
        self.lock().unplaced(who);
    }

    /// Its time to first token was predicted so, and now it has come.
    pub(crate) fn predicted(&self, who: &Who, ttft: Duration) {
        self.lock().of(who).predicted_ttft.observe(ttft.as_secs_f64());
    }

    /// From a request's arrival at the router until it was decided, waiting included.
    pub(crate) fn processed(&self, took: Duration) {
        self.lock().processing.observe(took.as_secs_f64());
    }

    /// Those who wait were looked through.
    pub(crate) fn cycled(&self, took: Duration) {
        self.lock().cycle.observe(took.as_secs_f64());
    }

    /// A worker has left for good.
    pub(crate) fn gone(&self, worker: &str) {
        self.lock().forget(worker);
    }

    fn lock(&self) -> MutexGuard<'_, Tallies> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
