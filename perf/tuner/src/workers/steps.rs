//! What a scheduler knows of its workers' steps: `/v1/steps`.

use baton_profile::{KvMemory, Limits, Profile, StepShape};
use serde::Deserialize;

use crate::fit::StepRecord;

/// All workers.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Told {
    pub(crate) workers: Vec<Worker>,
}

/// A worker: what bears on times, and what steps took.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Worker {
    pub(crate) model: Model,
    kv: Kv,
    engine: Engine,
    steps: Vec<Step>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) vocab_size: u32,
    pub(crate) max_context_tokens: u32,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Kv {
    bytes_per_token: f64,
    capacity_tokens: u64,
    block_tokens: u32,
    layers: u32,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Engine {
    max_step_tokens: u32,
    mixed_prompt_tokens: u32,
    max_running: u32,
    growth_tokens: u32,
    start_ms: u32,
}

/// Tokens of prompts, pairs, sequences, context tokens, microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
struct Step(u64, f64, u32, u64, u64);

impl Worker {
    /// Its steps.
    pub(crate) fn records(&self) -> impl Iterator<Item = StepRecord> {
        self.steps.iter().map(|&Step(prompt_tokens, pairs, sequences, context_tokens, us)| StepRecord {
            shape: StepShape { prompt_tokens, pairs, sequences, context_tokens },
            seconds: us as f64 / 1e6,
        })
    }

    /// Its KV memory.
    pub(crate) fn kv(&self) -> KvMemory {
        let Kv { bytes_per_token, capacity_tokens, block_tokens, .. } = self.kv;
        KvMemory { bytes_per_token, capacity_tokens, block_tokens }
    }

    /// Layers of its model.
    pub(crate) fn layers(&self) -> u32 {
        self.kv.layers
    }

    /// How its engine batches.
    pub(crate) fn limits(&self) -> Limits {
        let Engine { max_step_tokens, mixed_prompt_tokens, max_running, growth_tokens, .. } = self.engine;
        Limits {
            step_tokens: max_step_tokens,
            mixed_prompt_tokens: (mixed_prompt_tokens > 0).then_some(mixed_prompt_tokens),
            running: max_running,
            growth_tokens,
        }
    }

    /// How it differs from `profile`'s worker; nothing, where it does not.
    pub(crate) fn unlike(&self, profile: &Profile) -> Option<String> {
        let (is, was) = ((self.limits(), self.kv()), (profile.limits, profile.kv));
        (is != was).then(|| format!("workers have {is:?}, those of the profile {was:?}"))
    }

    /// From its start to its first request, seconds.
    pub(crate) fn startup_s(&self) -> f64 {
        f64::from(self.engine.start_ms) / 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_scheduler_tells_is_read() {
        let told: Told = serde_json::from_str(
            r#"{"workers":[{"worker_id":"decode-0","role":"decode","model":{"name":"m","vocab_size":2048,"max_context_tokens":4096},
            "kv":{"bytes_per_token":2048.0,"capacity_tokens":32768,"block_tokens":16,"layers":4},
            "engine":{"max_step_tokens":512,"mixed_prompt_tokens":0,"max_running":64,"growth_tokens":32,"start_ms":397},
            "columns":["prompt_tokens","pairs","sequences","context_tokens","us"],"steps":[[64,2048.0,0,0,44405],[0,0.0,1,64,2501]]}]}"#,
        )
        .unwrap();
        let [worker] = &told.workers[..] else { panic!("{told:?}") };
        let records: Vec<StepRecord> = worker.records().collect();
        assert_eq!(records[0].shape.prompt_tokens, 64);
        let generated = StepShape { sequences: 1, context_tokens: 64, ..StepShape::default() };
        assert_eq!((records[1].shape, records[1].seconds), (generated, 2_501e-6));
        assert_eq!(worker.limits(), Limits { growth_tokens: 32, ..Limits::default() });
        assert_eq!((worker.kv().blocks(), worker.layers(), worker.startup_s()), (2_048, 4, 0.397));
    }
}
