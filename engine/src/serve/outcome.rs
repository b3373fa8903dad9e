//! What a step gave each of its sequences: computed tokens, and from the logits the next ones.

use std::{slice::ChunksExact, time::Instant};

use super::{
    load::EngineTotals,
    sampler::Scratch,
    sequence::{Life, Sequence},
    shared::Shared,
};

/// The outcome of a step, taken sequence by sequence in the order of the batch.
pub(super) struct Outcomes<'a> {
    pub(super) rows: ChunksExact<'a, f32>,
    pub(super) shared: &'a Shared,
    pub(super) totals: &'a mut EngineTotals,
    pub(super) scratch: &'a mut Scratch,
    pub(super) now: Instant,
}

impl Outcomes<'_> {
    /// `count` tokens of a sequence are computed; if these are all that it has, the next one is chosen.
    pub(super) fn take(&mut self, sequence: &mut Sequence, count: usize) -> Life {
        let Self { rows, shared, totals, scratch, now } = self;
        let (of_prompt, again) = sequence.advance(count);
        totals.prompt_tokens += of_prompt as u64;
        totals.recomputed_tokens += again as u64;
        sequence.store_computed(&shared.layout);
        if sequence.uncomputed() > 0 {
            return Life::GoesOn;
        }
        let row = rows.next().expect("the model gives as many rows of logits as are wanted");
        totals.generation_tokens += 1;
        if sequence.output_len() == 0 && shared.config.prefix_cache {
            totals.prefix_query_tokens += sequence.prompt_len() as u64;
            totals.prefix_hit_tokens += sequence.cached_tokens() as u64;
        }
        sequence.sample(row, scratch, *now)
    }

    /// The last token of a sequence is computed, and after it `guesses`. Says how many of these were right: as many tokens are
    /// computed, and one more is chosen than that, unless the sequence ended before.
    pub(super) fn check(&mut self, sequence: &mut Sequence, guesses: &[u32]) -> (usize, Life) {
        let mut life = self.take(sequence, 1);
        let mut accepted = 0;
        let mut rows_left = guesses.len();
        for guess in guesses {
            if life == Life::Ended || sequence.last_token() != *guess {
                break;
            }
            accepted += 1;
            life = self.take(sequence, 1);
            rows_left -= 1;
        }
        if rows_left > 0 {
            self.rows.nth(rows_left - 1);
        }
        self.totals.speculation.note(guesses.len(), accepted);
        (accepted, life)
    }
}
