//! Loads that show what steps take: prompts alone, prompts that are partly cached, batches that generate, and both at a time.

use std::num::NonZeroU32;

use baton_policy::dice::Dice;
use baton_workload::{Distribution, Load, PrefixGroups, Source, Synthetic, Workload};

/// What may be asked of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// Tokens of a prompt and its answer.
    pub(crate) context: u32,
    /// Tokens that a worker's KV memory holds.
    pub(crate) capacity: u64,
    /// Sequences that it computes at a time.
    pub(crate) running: u32,
}

/// A load, and what it is for.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) name: String,
    pub(crate) workload: Workload,
}

/// Tokens of answers whose prompts count, and of those whose generation counts.
const SHORT: u32 = 2;
const LONG: u32 = 40;
/// Prompts of a size.
const REPEATS: u32 = 4;
/// Longest prompts.
const MOST: u32 = 16_384;

/// Prompts one after the other, of every size.
pub(crate) fn prompts(room: Room, seed: u64) -> Vec<Shown> {
    let sizes = doublings(2).take_while(|&tokens| tokens <= room.longest(SHORT));
    let shown = |tokens| Shown {
        name: format!("prompts of {tokens} tokens"),
        workload: closed(1, REPEATS, tokens, SHORT, None, seed),
    };
    sizes.map(shown).collect()
}

/// Prompts of which a beginning is cached.
pub(crate) fn cached(room: Room, seed: u64) -> Vec<Shown> {
    let mut loads = Vec::new();
    for prefix in [room.longest(SHORT) / 2, room.longest(SHORT) / 8].map(|tokens| tokens.min(MOST / 2)) {
        for tokens in
            [32, 128, 512].into_iter().filter(|tokens| prefix >= 64 && prefix + tokens <= room.longest(SHORT))
        {
            loads.push(Shown {
                name: format!("prompts of {tokens} tokens after {prefix} cached ones"),
                workload: closed(1, REPEATS + 1, tokens, SHORT, Some(prefix), seed + u64::from(prefix)),
            });
        }
    }
    loads
}

/// Sequences that generate, of every number and some lengths.
pub(crate) fn batches(room: Room, seed: u64) -> Vec<Shown> {
    let mut loads = Vec::new();
    for tokens in [32, 256, 2_048] {
        for sequences in doublings(1).take_while(|&sequences| sequences <= room.running) {
            let context = tokens + LONG;
            let fits =
                tokens <= room.longest(LONG) && u64::from(context * sequences) <= room.capacity * 9 / 10;
            if fits {
                loads.push(Shown {
                    name: format!("{sequences} sequences after {tokens} tokens"),
                    workload: closed(sequences, sequences, tokens, LONG, None, seed),
                });
            }
        }
    }
    loads
}

/// Prompts beside sequences that generate, for an aggregated worker.
pub(crate) fn mixed(room: Room, seed: u64) -> Vec<Shown> {
    let mut loads = Vec::new();
    for (sequences, tokens) in [(2, 256), (4, 128), (8, 256), (16, 512)] {
        let fits = tokens <= room.longest(LONG)
            && sequences <= room.running
            && u64::from(sequences * (tokens + LONG)) <= room.capacity * 9 / 10;
        if fits {
            loads.push(Shown {
                name: format!("{sequences} at a time, of {tokens} tokens"),
                workload: closed(sequences, 4 * sequences, tokens, LONG, None, seed),
            });
        }
    }
    loads
}

impl Room {
    /// Tokens of a prompt before an answer of `answer` tokens.
    fn longest(self, answer: u32) -> u32 {
        let fits = u32::try_from(self.capacity / 2).unwrap_or(u32::MAX);
        self.context.min(fits).saturating_sub(answer).min(MOST)
    }
}

fn doublings(first: u32) -> impl Iterator<Item = u32> {
    std::iter::successors(Some(first), |number| number.checked_mul(2))
}

fn closed(
    concurrency: u32,
    requests: u32,
    input: u32,
    output: u32,
    prefix: Option<u32>,
    seed: u64,
) -> Workload {
    // Prompts of two loads differ, or the one would find what the other has cached.
    let load =
        u64::from(input) << 40 | u64::from(concurrency) << 24 | u64::from(requests) << 8 | u64::from(output);
    let at_least_one = |number: u32| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
    Workload {
        seed: Dice::new(seed ^ load).next_u64(),
        load: Load::Closed { concurrency: at_least_one(concurrency) },
        requests: Some(at_least_one(requests)),
        duration: None,
        source: Source::Synthetic(Synthetic {
            input: Distribution::fixed(input),
            output: Distribution::fixed(output),
            prefixes: prefix
                .map(|tokens| PrefixGroups { groups: NonZeroU32::MIN, tokens: Distribution::fixed(tokens) }),
            sessions: None,
        }),
        cancel: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Room = Room { context: 512, capacity: 2_000, running: 8 };

    #[test]
    fn nothing_is_asked_that_a_worker_has_no_room_for() {
        let all = [prompts(SMALL, 1), cached(SMALL, 1), batches(SMALL, 1), mixed(SMALL, 1)];
        for Shown { name, workload } in all.iter().flatten() {
            let plan = workload.plan(&baton_workload::Estimate::default()).unwrap();
            let concurrency = plan.pacing().concurrency.unwrap();
            for request in plan.requests() {
                let prompt: u32 = request.prompt.pieces.iter().map(|piece| piece.tokens).sum();
                let tokens = prompt + request.output_tokens;
                assert!(
                    tokens <= SMALL.context && u64::from(tokens * concurrency) <= SMALL.capacity,
                    "{name}"
                );
            }
        }
        assert_eq!(prompts(SMALL, 1).len(), 8, "2 to 256");
        let names: Vec<String> = batches(SMALL, 1).into_iter().map(|load| load.name).collect();
        assert_eq!(names.len(), 7, "{names:?}");
    }

    #[test]
    fn no_load_sends_what_another_has_sent() {
        let large = Room { context: 8_192, capacity: 100_000, running: 64 };
        let loads = [prompts(large, 1), batches(large, 1), mixed(large, 1), prompts(large, 2)].concat();
        let mut seeds: Vec<u64> = loads.iter().map(|load| load.workload.seed).collect();
        seeds.sort_unstable();
        seeds.dedup();
        assert_eq!(seeds.len(), loads.len());
    }
}
