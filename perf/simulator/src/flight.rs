//! A request under way.

use crate::{traffic::NONE, world::Ending};

/// Where a request is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Not yet sent, or waiting to be let in by the scheduler.
    #[default]
    Outside,
    /// Waiting for KV memory at the decode worker.
    Reserving,
    /// Its blocks are reserved; whoever computes the prompt is being called.
    Called,
    /// At the prefill worker.
    Prefilling,
    /// Its blocks are on their way.
    Moving,
    /// At the decode worker, to be computed or to generate.
    Decoding,
    /// Over.
    Over,
}

/// Blocks that a request has at a worker.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hold {
    /// Of its own.
    pub(crate) own: u32,
    /// Nodes of its path that it uses in the cache.
    pub(crate) nodes: u32,
    /// Blocks of the path that it uses.
    pub(crate) shared: u32,
    /// Tokens of the prompt that it need not compute.
    pub(crate) cached_tokens: u32,
    /// Its place in the worker's order of arrival.
    pub(crate) arrival: u32,
}

/// The state of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flight {
    pub(crate) stage: Stage,
    pub(crate) ending: Ending,
    pub(crate) prefill: u32,
    pub(crate) decode: u32,
    pub(crate) at_prefill: Hold,
    pub(crate) at_decode: Hold,
    /// Of the prompt, when its blocks were reserved there.
    pub(crate) cached_at_decode: u32,
    /// Tokens to be generated yet.
    pub(crate) left: u32,
    /// Among those who generate: the step before which it joined, and tokens that it had then without the last.
    pub(crate) joined: u32,
    pub(crate) base: u32,
    pub(crate) end: u32,
    /// Prompt tokens of the last step that computed any.
    pub(crate) last_chunk: u32,
    pub(crate) preemptions: u32,
    /// Which run of steps it joined at.
    pub(crate) joined_run: u32,
    pub(crate) sent: f64,
    pub(crate) prefill_began: f64,
    /// When the first blocks could leave.
    pub(crate) first_data: f64,
    pub(crate) first_token: f64,
    pub(crate) landed: f64,
    pub(crate) decode_began: f64,
    pub(crate) last_token: f64,
    pub(crate) longest_gap: f64,
    pub(crate) ended: f64,
    pub(crate) link_ms: f64,
}

/// Not yet.
pub(crate) const NEVER: f64 = f64::INFINITY;

impl Default for Flight {
    fn default() -> Self {
        Self {
            stage: Stage::Outside,
            ending: Ending::Unfinished,
            prefill: NONE,
            decode: NONE,
            at_prefill: Hold::default(),
            at_decode: Hold::default(),
            cached_at_decode: 0,
            left: 0,
            joined: 0,
            base: 0,
            end: 0,
            last_chunk: 0,
            preemptions: 0,
            joined_run: 0,
            sent: NEVER,
            prefill_began: NEVER,
            first_data: NEVER,
            first_token: NEVER,
            landed: NEVER,
            decode_began: NEVER,
            last_token: NEVER,
            longest_gap: 0.0,
            ended: NEVER,
            link_ms: 0.0,
        }
    }
}
