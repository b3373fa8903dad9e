//! What is done to logits before a token is chosen.

use std::collections::{BTreeMap, BTreeSet};

use crate::serve::SamplingParams;

/// The tokens that penalties need to know about.
pub(super) struct History {
    /// Kept only when the repetition penalty is on.
    prompt: BTreeSet<u32>,
    /// How often each token was generated; kept only when a penalty is on.
    output: BTreeMap<u32, u32>,
    counts_output: bool,
}

impl History {
    pub(super) fn new(params: &SamplingParams, prompt: &[u32]) -> Self {
        let repetition = params.repetition_penalty != 1.0;
        let counts_output = repetition || params.presence_penalty != 0.0 || params.frequency_penalty != 0.0;
        let prompt = if repetition { prompt.iter().copied().collect() } else { BTreeSet::new() };
        Self { prompt, output: BTreeMap::new(), counts_output }
    }

    pub(super) fn record(&mut self, id: u32) {
        if self.counts_output {
            *self.output.entry(id).or_default() += 1;
        }
    }

    /// Repetition penalty on prompt and output, then frequency and presence penalty on output.
    pub(super) fn penalise(&self, logits: &mut [f32], params: &SamplingParams) {
        let repetition = params.repetition_penalty;
        if repetition != 1.0 {
            for &id in self.prompt.iter().chain(self.output.keys().filter(|id| !self.prompt.contains(id))) {
                let logit = &mut logits[id as usize];
                *logit = if *logit > 0.0 { *logit / repetition } else { *logit * repetition };
            }
        }
        for (&id, &count) in &self.output {
            logits[id as usize] -= params.frequency_penalty * count as f32;
            logits[id as usize] -= params.presence_penalty;
        }
    }
}

pub(super) fn add_bias(logits: &mut [f32], bias: &[(u32, f32)]) {
    for &(id, bias) in bias {
        logits[id as usize] += bias;
    }
}

pub(super) fn forbid(logits: &mut [f32], ids: &[u32]) {
    for &id in ids {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit = f32::NEG_INFINITY;
        }
    }
}
