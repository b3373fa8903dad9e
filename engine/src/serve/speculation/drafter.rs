//! What is drafted for whom in a step, and what is learned from it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{DraftRequest, MAX_DRAFT_TOKENS, Propose, Speculation, costs::StepCosts, depth::Acceptance};
use crate::{
    kv::KvLayout,
    serve::{mailbox::Arrival, sequence::Sequence},
};

/// The drafts of a step.
pub(in crate::serve) type Drafts = BTreeMap<Arrival, Draft>;

/// What a step computes for a sequence that generates.
pub(in crate::serve) struct Draft {
    /// Its last token, and the guesses.
    tokens: Vec<u32>,
    /// Blocks that it had before.
    pub(in crate::serve) blocks_before: usize,
}

/// The engine's speculation.
pub(in crate::serve) struct Drafter {
    proposer: Box<dyn Propose>,
    draft_tokens: usize,
    is_adaptive: bool,
    costs: StepCosts,
    overall: Acceptance,
    acceptance: BTreeMap<Arrival, Acceptance>,
    /// Steps since a draft was checked.
    steps_without: u32,
}

/// After so many steps in which drafts cost too much, the oldest sequence gets one, as costs may have changed.
const RETRY_STEPS: u32 = 512;

/// What a step has room for.
#[derive(Clone, Copy)]
pub(in crate::serve) struct DraftLimits<'a> {
    pub(in crate::serve) layout: &'a KvLayout,
    pub(in crate::serve) vocab_size: usize,
    /// Drafted tokens of all sequences together.
    pub(in crate::serve) tokens: usize,
}

impl Draft {
    /// What to compute: the sequence's last token, and the guesses.
    pub(in crate::serve) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    pub(in crate::serve) fn guesses(&self) -> &[u32] {
        &self.tokens[1..]
    }
}

impl Drafter {
    pub(in crate::serve) fn new(speculation: Speculation) -> Self {
        let Speculation { proposer, draft_tokens, is_adaptive } = speculation;
        assert!((1..=MAX_DRAFT_TOKENS).contains(&draft_tokens), "{draft_tokens} tokens in a draft");
        Self {
            proposer,
            draft_tokens,
            is_adaptive,
            costs: StepCosts::default(),
            overall: Acceptance::of_all(),
            acceptance: BTreeMap::new(),
            steps_without: 0,
        }
    }

    /// Drafts for those that generate, oldest first as long as there is room; takes the blocks that the drafts need.
    pub(in crate::serve) fn draft(
        &mut self,
        running: &mut BTreeMap<Arrival, Box<Sequence>>,
        limits: DraftLimits<'_>,
    ) -> Drafts {
        if limits.tokens == 0 || (self.is_adaptive && self.costs.wants_a_plain_step()) {
            return Drafts::new();
        }
        let depths = self.depths(running);
        let requests: Vec<DraftRequest<'_>> =
            depths.iter().map(|(arrival, most)| running[arrival].draft_request(arrival.0, *most)).collect();
        if requests.is_empty() {
            return Drafts::new();
        }
        let proposed = self.propose(&requests);
        let mut drafts = Drafts::new();
        let mut left = limits.tokens;
        for ((arrival, most), mut guesses) in depths.into_iter().zip(proposed) {
            let Some(sequence) = running.get_mut(&arrival) else { continue };
            let blocks_before = sequence.block_ids().len();
            guesses.truncate(most.min(left));
            sequence.cut_draft(&mut guesses, limits.vocab_size);
            guesses.truncate(sequence.take_draft_blocks(guesses.len(), limits.layout));
            if !guesses.is_empty() {
                left -= guesses.len();
                guesses.insert(0, sequence.last_token());
                drafts.insert(arrival, Draft { tokens: guesses, blocks_before });
            }
        }
        drafts
    }

    /// For whom how many tokens are worth drafting.
    fn depths(&mut self, running: &BTreeMap<Arrival, Box<Sequence>>) -> Vec<(Arrival, usize)> {
        let generating = || running.iter().filter(|(_, sequence)| sequence.is_decoding());
        let (extra, belief) = (self.costs.extra(generating().count()), self.overall.belief());
        let mut depths = Vec::new();
        for (arrival, sequence) in generating() {
            let mut depth = self.draft_tokens.min(sequence.most_drafts());
            if self.is_adaptive {
                let acceptance = self.acceptance.entry(*arrival).or_insert_with(Acceptance::of_sequence);
                depth = acceptance.depth(belief, extra, depth);
            }
            if depth > 0 {
                depths.push((*arrival, depth));
            }
        }
        // Until a draft is checked: who proposes may have to catch up first.
        self.steps_without += 1;
        if depths.is_empty() && self.steps_without >= RETRY_STEPS {
            depths.extend(generating().find(|(_, s)| s.most_drafts() > 0).map(|(arrival, _)| (*arrival, 1)));
        }
        depths
    }

    fn propose(&mut self, requests: &[DraftRequest<'_>]) -> Vec<Vec<u32>> {
        let started = Instant::now();
        let proposed = self.proposer.propose(requests);
        // Where somebody gets nothing the time was spent on something else as well, such as a prompt.
        let rounds = proposed.iter().map(Vec::len).max().unwrap_or(0);
        if rounds > 0 && proposed.iter().all(|draft| !draft.is_empty()) {
            self.costs.observe_drafting(rounds, started.elapsed());
        }
        proposed
    }

    /// Takes note of what became of a draft.
    pub(in crate::serve) fn note(&mut self, arrival: Arrival, drafted: usize, accepted: usize) {
        self.steps_without = 0;
        self.overall.note(drafted, accepted);
        if let Some(acceptance) = self.acceptance.get_mut(&arrival) {
            acceptance.note(drafted, accepted);
        }
    }

    /// Takes note of how long a step took in which everybody generated.
    pub(in crate::serve) fn observe_step(&mut self, rows: usize, sequences: usize, took: Duration) {
        self.costs.observe_step(rows, sequences, took);
    }

    /// Forgets all but those who are still there.
    pub(in crate::serve) fn keep_only(&mut self, is_live: &dyn Fn(Arrival) -> bool) {
        self.acceptance.retain(|arrival, _| is_live(*arrival));
        self.proposer.keep_only(&|sequence| is_live(Arrival(sequence)));
    }
}
