//! The workers' load, for those who ask.

use std::sync::Arc;

use super::Router;

/// The fleet at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PoolView {
    pub(crate) workers: Vec<WorkerLoadView>,
    /// How full prefill and decode are: from 1 on nothing is let in.
    pub(crate) prefill_saturation: f64,
    pub(crate) decode_saturation: f64,
}

/// A worker's last report.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct WorkerLoadView {
    pub(crate) id: Arc<str>,
    /// Whether it takes requests.
    pub(crate) is_ready: bool,
    pub(crate) waiting: f64,
    pub(crate) running: f64,
    /// Share of its KV memory that requests use, 0 to 1.
    pub(crate) kv_usage: f64,
}

impl Router {
    /// The fleet now.
    pub(crate) fn pool(&self) -> PoolView {
        let known = self.lock();
        // A place that nobody has has no name.
        let workers = known.placer.fleet.workers.iter().filter(|worker| !worker.id.is_empty());
        let (prefill_saturation, decode_saturation) = known.placer.admission.saturation();
        PoolView {
            workers: workers
                .map(|worker| WorkerLoadView {
                    id: worker.id.clone(),
                    is_ready: !worker.is_draining,
                    waiting: f64::from(worker.report.waiting),
                    running: f64::from(worker.report.running),
                    kv_usage: worker.report.kv_used_tokens as f64 / worker.kv_capacity_tokens.max(1) as f64,
                })
                .collect(),
            prefill_saturation,
            decode_saturation,
        }
    }
}
