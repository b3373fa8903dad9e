//! The pool at the moment somebody asks: its workers' load, and how full it is.

use super::samples::{Label, Sample, Value};
use crate::router::{PoolView, WorkerLoadView};

/// The pool, as labels name it, and what is in it.
#[derive(Debug)]
pub(super) struct Pool {
    namespace: String,
    name: String,
    view: PoolView,
}

impl Pool {
    /// `name`: `NAMESPACE/NAME` or `NAME`.
    pub(super) fn new(name: &str, view: PoolView) -> Self {
        let (namespace, name) = name.split_once('/').unwrap_or(("", name));
        Self { namespace: namespace.to_owned(), name: name.to_owned(), view }
    }

    pub(super) fn label(&self, sample: Sample) -> Sample {
        sample.with(Label::Pool, self.name.clone()).with(Label::Namespace, self.namespace.clone())
    }

    pub(super) fn ready(&self) -> Vec<Sample> {
        let ready = self.view.workers.iter().filter(|worker| worker.is_ready).count();
        vec![self.label(Sample::new(Value::Level(ready as f64)))]
    }

    /// Of all workers the mean.
    pub(super) fn mean(&self, of: fn(&WorkerLoadView) -> f64) -> Vec<Sample> {
        vec![self.label(Sample::new(Value::Level(self.spread(of).0)))]
    }

    /// Of all workers the standard deviation.
    pub(super) fn deviation(&self, of: fn(&WorkerLoadView) -> f64) -> Vec<Sample> {
        vec![self.label(Sample::new(Value::Level(self.spread(of).1)))]
    }

    /// Requests that wait, by worker.
    pub(super) fn queues(&self) -> Vec<Sample> {
        let queue = |worker: &WorkerLoadView| {
            self.label(Sample::new(Value::Level(worker.waiting))).with(Label::Worker, worker.id.to_string())
        };
        self.view.workers.iter().map(queue).collect()
    }

    /// 1: nothing more is let in.
    pub(super) fn saturation(&self) -> Vec<Sample> {
        let (prefill, decode) = (self.view.prefill_saturation, self.view.decode_saturation);
        let stages = [("prefill", prefill), ("decode", decode), ("effective", prefill.max(decode))];
        let sample = |(stage, value)| self.label(Sample::new(Value::Level(value))).with(Label::Stage, stage);
        stages.into_iter().map(sample).collect()
    }

    fn spread(&self, of: fn(&WorkerLoadView) -> f64) -> (f64, f64) {
        let count = self.view.workers.len().max(1) as f64;
        let mean = self.view.workers.iter().map(of).sum::<f64>() / count;
        let square = |worker| (of(worker) - mean).powi(2);
        (mean, (self.view.workers.iter().map(square).sum::<f64>() / count).sqrt())
    }
}
