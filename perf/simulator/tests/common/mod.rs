//! Traffic and profiles for tests.
#![allow(dead_code, reason = "each test file uses a part")]

use std::sync::Arc;

use baton_policy::dice::Dice;
use baton_profile::{Estimate, Profile};
use baton_simulator::{PromptPiece, SimRequest, Start, Traffic};

/// Llama-3.1-8B on one H100.
pub(crate) fn profile() -> Profile {
    Estimate::of("p5", "llama-3.1-8b").expect("published").profile().expect("8 billion parameters fit")
}

/// A small worker, whose memory and steps are soon full.
pub(crate) fn tight() -> Profile {
    let mut profile = profile();
    profile.kv.capacity_tokens = 16 * 1_200;
    profile.limits.step_tokens = 512;
    profile.limits.mixed_prompt_tokens = Some(128);
    profile.limits.running = 16;
    profile
}

/// So many requests, `per_second` of them, of about so many tokens each way.
pub(crate) fn poisson(count: usize, per_second: f64, prompt: f64, output: f64, seed: u64) -> Vec<SimRequest> {
    let mut dice = Dice::new(seed);
    let mut at = 0.0;
    let mut draw = |mean: f64| -> f64 { -mean * (1.0 - dice.unit()).ln() };
    (0..count)
        .map(|_| {
            at += draw(1e3 / per_second);
            SimRequest {
                start: Start::At(at),
                prompt_tokens: 1 + draw(prompt) as u32,
                output_tokens: 1 + draw(output) as u32,
                pieces: Vec::new(),
                cancel: None,
            }
        })
        .collect()
}

/// Sessions: each request's prompt is its session's first turns, and something new.
pub(crate) fn sessions(count: usize, per_second: f64, users: usize, seed: u64) -> Vec<SimRequest> {
    let mut dice = Dice::new(seed ^ 0x5e55);
    let mut histories = vec![Vec::<PromptPiece>::new(); users];
    let mut requests = poisson(count, per_second, 300.0, 100.0, seed);
    for (index, request) in requests.iter_mut().enumerate() {
        let history = &mut histories[dice.below(users)];
        if history.is_empty() {
            history.push(PromptPiece { id: 0, tokens: 200, answer_of: None });
        }
        if history.len() > 20 {
            history.truncate(1);
        }
        history.push(PromptPiece { id: 1 + index as u64, tokens: request.prompt_tokens, answer_of: None });
        request.pieces.clone_from(history);
        request.prompt_tokens = history.iter().map(|piece| piece.tokens).sum();
    }
    requests
}

pub(crate) fn traffic(requests: Vec<SimRequest>) -> Traffic {
    Traffic::try_new(requests, 1).expect("good requests")
}

pub(crate) fn shared(profile: Profile) -> Arc<Profile> {
    Arc::new(profile)
}
