//! Tells a scheduler what steps took of late.

use baton_engine::{Engine, StepSample};
use baton_proto::v1::{Step, WorkReport, WorkerReport, worker_report::Report};
use tokio::sync::mpsc;

/// Steps of a report at most.
const MOST: usize = 48;

/// Of one membership.
#[derive(Debug)]
pub(crate) struct WorkFeed {
    /// Steps that were told, or passed over.
    told: u64,
}

impl WorkFeed {
    /// Of what comes from now on: before, the engine warmed up.
    pub(crate) fn of(engine: &Engine) -> Self {
        Self { told: engine.steps_since(u64::MAX).1 }
    }

    /// Tells what is new; if the last reports are still on their way, the next one will.
    pub(crate) fn report(&mut self, engine: &Engine, reports: &mpsc::Sender<WorkerReport>) {
        let Ok(room) = reports.try_reserve() else { return };
        let (samples, seen) = engine.steps_since(self.told);
        self.told = seen;
        if !samples.is_empty() {
            let steps = some_of(&samples).map(step).collect();
            room.send(WorkerReport { report: Some(Report::Work(WorkReport { steps })) });
        }
    }
}

/// All, or some at even distances.
fn some_of(samples: &[StepSample]) -> impl Iterator<Item = &StepSample> {
    let count = samples.len().min(MOST);
    (0..count).map(move |at| &samples[at * samples.len() / count])
}

fn step(sample: &StepSample) -> Step {
    let shape = sample.shape;
    Step {
        prompt_tokens: u32::try_from(shape.prompt_tokens).unwrap_or(u32::MAX),
        pairs: shape.pairs,
        sequences: shape.sequences,
        context_tokens: shape.context_tokens,
        us: u64::try_from(sample.took.as_micros()).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use baton_profile::StepShape;

    use super::*;

    fn samples(count: u64) -> Vec<StepSample> {
        let shape = |sequences| StepShape { sequences, ..StepShape::default() };
        let sample = |n: u64| StepSample { shape: shape(n as u32), took: Duration::from_micros(n) };
        (0..count).map(sample).collect()
    }

    #[test]
    fn few_steps_are_told_all_and_many_in_part() {
        let told = |count| some_of(&samples(count)).map(|sample| step(sample).us).collect::<Vec<_>>();
        assert_eq!(told(3), [0, 1, 2]);
        assert_eq!(told(0), [0; 0]);
        let many = told(480);
        assert_eq!(many, (0..48).map(|n| 10 * n).collect::<Vec<_>>());
    }
}
