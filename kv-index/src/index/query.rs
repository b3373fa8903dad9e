//! Who has how much of a prompt.

use std::ops::ControlFlow;

use super::{
    Index, WorkerId,
    blocks::{BATCH, Block, Near},
    steps::in_steps,
};
use crate::{
    PromptKeys,
    holders::{Holders, Life, Member, Tiers},
};

/// Places where blocks are: GPU, host, disk, or only guessed.
const PLACES: usize = 4;

/// What a token is worth, by where it is: 1 for one that need not be computed, 0 for one that may as well be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TierWeights {
    /// Where its engine computes.
    pub gpu: f32,
    /// Has to be copied from the host's memory.
    pub host: f32,
    /// Has to be read from a disk.
    pub disk: f32,
    /// Is expected to be there.
    pub guessed: f32,
}

/// A worker that holds a beginning of the prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The worker.
    pub worker: WorkerId,
    /// Tokens of the prefix, without a gap, that are in the GPU's memory at best, the host's, on a disk, or only guessed.
    pub tokens: [u32; PLACES],
    /// Since its last block was stored somewhere, or expected.
    pub age_seconds: u32,
}

/// What a query found; to be used again for the next one.
#[derive(Clone, Debug, Default)]
pub struct Matches {
    found: Vec<Found>,
    walking: Vec<Walking>,
}

/// A worker that has everything so far.
#[derive(Clone, Copy, Debug)]
struct Walking {
    life: Life,
    worker: WorkerId,
    /// Index of the place where it has the blocks from `since` on.
    place: usize,
    since: u32,
    blocks: [u32; PLACES],
}

impl Index {
    /// Finds every worker that holds the first block, and how far its blocks go on without a gap, adding to what was found for other
    /// block sizes. Workers that hold nothing are not looked at.
    pub fn query(&self, prompt: &PromptKeys, matches: &mut Matches) {
        let counting = self.guesses.counting();
        let mut walk = Walk { index: self, counting, block_tokens: prompt.block_tokens(), matches };
        walk.matches.walking.clear();
        let keys = prompt.keys();
        let (mut at, mut before, mut near) = (0, Block::NOBODY, Near::default());
        in_steps(
            &mut walk,
            keys.len(),
            BATCH,
            |_, batch| self.blocks.fetch(&keys[batch]),
            |_, batch| self.blocks.fetch_further(&keys[batch]),
            |walk, batch| {
                for &key in &keys[batch] {
                    let block = self.blocks.get(key, &mut near).unwrap_or(Block::NOBODY);
                    if block.holders != before.holders || at == 0 {
                        walk.step(at, block.holders, before);
                        if walk.matches.walking.is_empty() {
                            return ControlFlow::Break(());
                        }
                    }
                    before = block;
                    at += 1;
                }
                ControlFlow::Continue(())
            },
        );
        walk.step(at, Holders::NOBODY, before);
    }
}

struct Walk<'a> {
    index: &'a Index,
    counting: Tiers,
    block_tokens: u32,
    matches: &'a mut Matches,
}

impl Walk<'_> {
    /// Block `at` is held by others than the one before it.
    fn step(&mut self, at: u32, holders: Holders, before: Block) {
        let mut one = Member::new(0, 0);
        let members = self.index.sets.slice(holders, &mut one);
        if at == 0 && self.matches.walking.is_empty() {
            let first = members.iter().filter_map(|member| {
                let worker = self.index.lives.worker(member.life())?;
                let place = place(member.tiers() & self.counting)?;
                Some(Walking { life: member.life(), worker, place, since: 0, blocks: [0; PLACES] })
            });
            self.matches.walking.extend(first);
            return;
        }
        let Self { index, counting, block_tokens, matches } = self;
        let Matches { found, walking } = &mut **matches;
        let mut members = members.iter().peekable();
        // Both are in the order of lives.
        walking.retain_mut(|walker| {
            while members.next_if(|member| member.life() < walker.life).is_some() {}
            let here = members.peek().filter(|member| member.life() == walker.life);
            let now = here.and_then(|member| place(member.tiers() & *counting));
            if now != Some(walker.place) {
                walker.blocks[walker.place] += at - walker.since;
                walker.since = at;
            }
            match now {
                Some(now) => walker.place = now,
                None => found.push(Found {
                    worker: walker.worker,
                    tokens: walker.blocks.map(|blocks| blocks * *block_tokens),
                    age_seconds: before.age.seconds(index.now),
                }),
            }
            now.is_some()
        });
    }
}

/// The best one.
#[inline]
fn place(tiers: Tiers) -> Option<usize> {
    (tiers != 0).then(|| (tiers.trailing_zeros() as usize).min(PLACES - 1))
}

impl Matches {
    /// Forgets what was found.
    pub fn clear(&mut self) {
        self.found.clear();
    }

    /// Each worker once for each block size that it has blocks of; in no order.
    pub fn found(&self) -> &[Found] {
        &self.found
    }
}

impl Found {
    /// Length of the prefix.
    pub fn prefix_tokens(&self) -> u32 {
        self.tokens.iter().sum()
    }

    /// Length of the prefix in tokens of weight 1.
    pub fn weighted_tokens(&self, weights: &TierWeights) -> f32 {
        let TierWeights { gpu, host, disk, guessed } = *weights;
        let weights = [gpu, host, disk, guessed];
        self.tokens.iter().zip(weights).map(|(tokens, weight)| *tokens as f32 * weight).sum()
    }
}

/// A copy from the host is some ten times faster than computing, from a disk a few times; the engine may do without.
impl Default for TierWeights {
    fn default() -> Self {
        Self { gpu: 1.0, host: 0.8, disk: 0.5, guessed: 0.9 }
    }
}
