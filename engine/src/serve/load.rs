//! What an engine tells about itself.

use std::time::Duration;

use super::MAX_DRAFT_TOKENS;
use crate::kv::BlockCounts;

/// An engine's load and totals at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineLoad {
    /// Requests and reservations that wait for room.
    pub waiting: usize,
    /// Sequences being computed.
    pub running: usize,
    /// Tokens of waiting and running sequences whose keys and values are not computed yet.
    pub waiting_prompt_tokens: usize,
    /// Reservations granted and neither used nor dropped.
    pub reservations: usize,
    /// Where the KV blocks are.
    pub blocks: BlockCounts,
    /// What was done since the start.
    pub totals: EngineTotals,
}

/// Counts since the start of an engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineTotals {
    /// Steps computed.
    pub steps: u64,
    /// Of these, steps in which sequences only generated.
    pub decode: DecodeTotals,
    /// Prompt tokens computed.
    pub prompt_tokens: u64,
    /// Tokens generated here.
    pub generation_tokens: u64,
    /// Times that a sequence gave its blocks to others and was computed again.
    pub preemptions: u64,
    /// Tokens computed again after that.
    pub recomputed_tokens: u64,
    /// Tokens of the prompts that were looked for in the prefix cache.
    pub prefix_query_tokens: u64,
    /// Of these, tokens that were found there and not computed.
    pub prefix_hit_tokens: u64,
    /// What became of drafts.
    pub speculation: SpeculationTotals,
}

/// Sums over steps in which sequences only generated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecodeTotals {
    /// Such steps.
    pub steps: u64,
    /// What they took, in microseconds.
    pub us: u64,
    /// Sequences of each.
    pub sequences: u64,
    /// Tokens whose keys and values those sequences had.
    pub context_tokens: u64,
}

/// Counts of drafts that were put to the test. Drafted tokens that were cut before that are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpeculationTotals {
    /// Drafts, each for one sequence in one step.
    pub drafts: u64,
    /// Tokens of these.
    pub draft_tokens: u64,
    /// Of these, tokens that were right, and so came without a step of their own.
    pub accepted_tokens: u64,
    /// The same by their place in the draft.
    pub accepted_at: [u64; MAX_DRAFT_TOKENS],
}

impl DecodeTotals {
    /// A step of `sequences` with `context_tokens` together took so long.
    pub(super) fn note(&mut self, sequences: u64, context_tokens: u64, took: Duration) {
        self.steps += 1;
        self.us += u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.sequences += sequences;
        self.context_tokens += context_tokens;
    }
}

impl SpeculationTotals {
    /// Of `drafted` tokens the first `accepted` were right.
    pub(super) fn note(&mut self, drafted: usize, accepted: usize) {
        self.drafts += 1;
        self.draft_tokens += drafted as u64;
        self.accepted_tokens += accepted as u64;
        self.accepted_at[..accepted].iter_mut().for_each(|count| *count += 1);
    }
}

/// Where an engine stands in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineState {
    /// Takes requests.
    Serving,
    /// Finishes what it has.
    Draining,
    /// Ended; every request has had its terminal event.
    Stopped {
        /// Why.
        reason: String,
        /// Whether it ended by a fault rather than because it was asked to.
        failed: bool,
    },
}

/// How to end an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Take nothing new; finish all that waits and runs, and what outstanding reservations become.
    Drain,
    /// Fail all that waits and runs, after the step being computed.
    Abort,
}
