//! The first request must not be slow: everything is touched once before anybody is told that the worker is there.

use std::sync::Arc;

use baton_engine::{BlockId, Engine, PrefillSink, SamplingParams, SequenceEvent, SequenceRequest};

use crate::RunError;

/// Tokens of the prompt that is computed: enough for the kernels' wide paths.
const PROMPT_TOKENS: usize = 64;
/// Tokens that are generated.
const NEW_TOKENS: u32 = 2;
/// Tokens that are generated beside these when some can be drafted.
const DRAFTED_TOKENS: u32 = 2;

struct Nowhere;

impl PrefillSink for Nowhere {
    fn layers_ready(&self, _: std::ops::Range<usize>, _: std::ops::Range<usize>, _: &[BlockId]) {}
}

/// Computes a small request, both ways.
///
/// # Errors
/// The engine cannot serve it.
pub async fn warm_up(engine: &Engine) -> Result<(), RunError> {
    let pool_tokens = engine.load().blocks.total * engine.kv_layout().block_tokens;
    let room = engine.max_context_tokens().min(pool_tokens);
    let new_tokens = if engine.draft_tokens() > 0 { NEW_TOKENS + DRAFTED_TOKENS } else { NEW_TOKENS };
    let prompt = vec![0; PROMPT_TOKENS.min(room.saturating_sub(new_tokens as usize)).max(1)];
    let sampling = SamplingParams { ignore_eos: true, ..SamplingParams::greedy(new_tokens) };
    let request = SequenceRequest::new("warm-up", prompt, sampling);
    if room <= request.prompt.len() {
        // A pool of a token or two has nothing to warm up.
        return Ok(());
    }
    let failed = |reason: String| RunError::WarmUp { reason };
    let mut handle = engine.submit(request.clone()).map_err(|error| failed(error.to_string()))?;
    loop {
        match handle.recv().await {
            Some(SequenceEvent::Prefilled(_) | SequenceEvent::Token(_)) => {}
            Some(SequenceEvent::Failed(failure)) => return Err(failed(failure.to_string())),
            Some(SequenceEvent::Finished(..)) | None => break,
        }
    }
    // Or the second one would find its prompt cached, and the first real one find what nobody asked for.
    engine.clear_prefix_cache();
    let mut leg = engine.prefill(request, Arc::new(Nowhere)).map_err(|error| failed(error.to_string()))?;
    leg.first_token().await.map_err(|failure| failed(failure.to_string()))?;
    engine.clear_prefix_cache();
    Ok(())
}
