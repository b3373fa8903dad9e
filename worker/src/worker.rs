//! A running worker, as the roles' services see it.

use std::{sync::Arc, time::Instant};

use baton_engine::Engine;
use baton_grammar::Grammars;
use baton_kv_transfer::TransferNode;
use baton_proto::v1::{Failure, FailureKind, WorkerLoad};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{Adapters, RequestMetrics};

/// Engine and transfer node over one pool.
pub struct Worker {
    /// Computes.
    pub engine: Engine,
    /// Moves KV blocks into and out of the engine's pool.
    pub node: TransferNode,
    /// What requests are counted in.
    pub metrics: RequestMetrics,
    /// Tokens that the model knows.
    pub vocab_size: usize,
    /// Compiles what outputs must be; `None`: requests that ask for it are refused.
    pub grammars: Option<Grammars>,
    /// What requests may select beside the model; `None`: nothing.
    pub adapters: Option<Arc<Adapters>>,
    /// The task of each call under way.
    pub calls: TaskTracker,
    /// From then on no new calls.
    pub draining: CancellationToken,
    /// From then on calls under way are given up too.
    pub stop: CancellationToken,
}

impl Worker {
    /// One that serves from now on.
    pub fn new(engine: Engine, node: TransferNode, metrics: RequestMetrics, vocab_size: usize) -> Self {
        Self {
            engine,
            node,
            metrics,
            vocab_size,
            grammars: None,
            adapters: None,
            calls: TaskTracker::new(),
            draining: CancellationToken::new(),
            stop: CancellationToken::new(),
        }
    }

    /// With structured output.
    #[must_use]
    pub fn with_grammars(self, grammars: Option<Grammars>) -> Self {
        Self { grammars, ..self }
    }

    /// With adapters.
    #[must_use]
    pub fn with_adapters(self, adapters: Arc<Adapters>) -> Self {
        Self { adapters: Some(adapters), ..self }
    }

    /// What the scheduler is told.
    pub fn load(&self) -> WorkerLoad {
        let load = self.engine.load();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let decode = load.totals.decode;
        WorkerLoad {
            waiting: count(load.waiting),
            running: count(load.running),
            waiting_prompt_tokens: load.waiting_prompt_tokens as u64,
            blocks_free: count(load.blocks.available()),
            blocks_total: count(load.blocks.total),
            draining: self.draining.is_cancelled(),
            decode_steps: decode.steps,
            decode_us: decode.us,
            decode_sequences: decode.sequences,
            decode_context_tokens: decode.context_tokens,
        }
    }

    /// Whether a new call is taken.
    ///
    /// # Errors
    /// What to answer instead.
    pub fn admit(&self) -> Result<(), Failure> {
        if self.draining.is_cancelled() {
            return Err(unavailable("this worker is shutting down"));
        }
        Ok(())
    }

    /// Whether the model knows every token of `prompt`.
    ///
    /// # Errors
    /// The first that it does not.
    pub fn check_tokens(&self, prompt: &[u32]) -> Result<(), Failure> {
        let vocab_size = self.vocab_size;
        match prompt.iter().position(|&id| id as usize >= vocab_size) {
            None => Ok(()),
            Some(position) => Err(Failure {
                kind: FailureKind::Invalid.into(),
                message: format!(
                    "token {position} of the prompt is {}, the vocabulary has {vocab_size} tokens",
                    prompt[position]
                ),
            }),
        }
    }
}

/// A failure because of this worker's end.
pub fn unavailable(message: &str) -> Failure {
    Failure { kind: FailureKind::Unavailable.into(), message: message.to_owned() }
}

/// The moment `deadline_ms` from now; `None` for 0, or for a moment out of reach.
pub fn deadline(deadline_ms: u64) -> Option<Instant> {
    let patience = std::time::Duration::from_millis(deadline_ms);
    if deadline_ms == 0 { None } else { Instant::now().checked_add(patience) }
}
