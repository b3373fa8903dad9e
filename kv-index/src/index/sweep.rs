//! Taking out what counts no more, and what there is no room for, one part at a time.
//!
//! A pass goes over all blocks, then over all names. It takes out what ended lives held and guesses that ended, both of which
//! queries already pass over. If the index is nearly full it also drops blocks: an eighth of them, the oldest and among those the
//! deepest, by a line drawn through a sample. Names that lead nowhere go last.

use super::{
    Index,
    blocks::{BATCH, Block, Near},
    lives::Lives,
};
use crate::holders::{Holders, Member, Sets, Tiers};

/// Blocks that the line is drawn through.
const SAMPLE: usize = 4096;
/// Part of the blocks that a pass drops if there are too many.
const DROPPED: usize = 8;
/// Part of the memory that is left when it begins to.
const LEFT: usize = 16;

/// What a pass is at; with the part that is next.
#[derive(Clone, Copy, Debug, Default)]
enum Phase {
    #[default]
    Idle,
    Blocks(usize),
    Names(usize),
}

#[derive(Default)]
pub(super) struct Sweep {
    phase: Phase,
    /// Bits of guesses that this pass takes out.
    guesses: Tiers,
    /// Whether it takes out lives.
    has_lives: bool,
    /// Blocks that it still has to drop.
    quota: usize,
    /// Those that [`Age::leaves`] says this of, or more.
    line: u64,
    /// Whether names may lead nowhere after it.
    loses_blocks: bool,
}

impl Index {
    /// Sweeps one part, which takes some ten microseconds. Whether there is more to do.
    pub fn maintain(&mut self) -> bool {
        match self.sweep.phase {
            Phase::Idle => self.begin_pass(),
            Phase::Blocks(part) => {
                self.sweep_blocks(part);
                let next = part + 1;
                self.sweep.phase =
                    if next < self.blocks.parts() { Phase::Blocks(next) } else { Phase::Names(0) };
            }
            Phase::Names(part) if part < self.names.parts() => {
                self.sweep_names(part);
                self.sweep.phase = Phase::Names(part + 1);
            }
            Phase::Names(_) => self.end_pass(),
        }
        !matches!(self.sweep.phase, Phase::Idle)
    }

    /// Sweeps until there is nothing left to do.
    pub fn settle(&mut self) {
        while self.maintain() {}
    }

    /// Whether nothing may be stored before [`Self::maintain`] has made room.
    pub fn is_full(&self) -> bool {
        self.charged() > self.limits.bytes && self.blocks.len() + self.names.len() > 0
    }

    fn begin_pass(&mut self) {
        let guesses = self.guesses.dirty();
        let has_lives = self.lives.dead() > 0;
        let is_nearly_full = self.charged() > self.limits.bytes - self.limits.bytes / LEFT;
        let drops = is_nearly_full && self.blocks.len() + self.names.len() > 0;
        if guesses == 0 && !has_lives && !drops {
            return;
        }
        self.lives.let_go();
        let quota = if drops { self.blocks.len().div_ceil(DROPPED) } else { 0 };
        let line = if drops { self.line() } else { u64::MAX };
        let loses_blocks = drops || !self.domains.is_empty();
        self.sweep = Sweep { phase: Phase::Blocks(0), guesses, has_lives, quota, line, loses_blocks };
    }

    fn end_pass(&mut self) {
        self.blocks.retained();
        self.names.retained();
        self.lives.gone();
        self.guesses.cleaned(self.sweep.guesses);
        self.sweep = Sweep::default();
        // What happened meanwhile.
        self.begin_pass();
    }

    /// Above which an eighth of the blocks are.
    fn line(&self) -> u64 {
        let ages = self.blocks.ages(SAMPLE);
        let mut sample: Vec<u64> = ages.iter().map(|age| age.leaves(self.now)).collect();
        let at = sample.len() - sample.len().div_ceil(DROPPED);
        if sample.is_empty() { 0 } else { *sample.select_nth_unstable(at).1 }
    }

    fn sweep_blocks(&mut self, part: usize) {
        let Self { blocks, sets, lives, sweep, counts, now, .. } = self;
        blocks.retain(part, |Block { holders, age }| {
            let is_dropped = sweep.quota > 0 && age.leaves(*now) >= sweep.line;
            let left = if is_dropped { Holders::NOBODY } else { sweep.left(holders, sets, lives) };
            if is_dropped {
                sweep.quota -= 1;
                counts.evicted += 1;
                forget(holders, sets, lives);
            }
            if left != holders {
                sets.acquire(left);
                sets.release(holders);
            }
            left
        });
    }

    fn sweep_names(&mut self, part: usize) {
        let Self { blocks, names, lives, sweep, .. } = self;
        let mut stays = Vec::with_capacity(names.entries(part).count());
        let (mut keys, mut near) = ([0; BATCH], Near::default());
        let mut entries = names.entries(part).peekable();
        while entries.peek().is_some() {
            let mut count = 0;
            for (key, entry) in keys.iter_mut().zip(&mut entries) {
                *key = entry.value;
                count += 1;
            }
            if sweep.loses_blocks {
                blocks.fetch(&keys[..count]);
                blocks.fetch_further(&keys[..count]);
            }
            let stays_here = |key: &u64| !sweep.loses_blocks || blocks.find(*key, &mut near).is_some();
            stays.extend(keys[..count].iter().map(stays_here));
        }
        drop(entries);
        let mut stays = stays.into_iter();
        names.retain(part, |name, _| stays.next() == Some(true) && !lives.is_leaving(name as u16));
    }
}

impl Sweep {
    /// Of the holders of a block, those that count.
    fn left(&self, holders: Holders, sets: &mut Sets, lives: &mut Lives) -> Holders {
        let stays = |member: &Member| {
            if self.has_lives && lives.is_leaving(member.life()) { 0 } else { member.tiers() & !self.guesses }
        };
        let mut one = Member::new(0, 0);
        let members = sets.slice(holders, &mut one);
        if (self.guesses == 0 && !self.has_lives)
            || members.iter().all(|member| stays(member) == member.tiers())
        {
            return holders;
        }
        let left: Vec<Member> = members
            .iter()
            .map(|member| Member::new(member.life(), stays(member)))
            .filter(|member| member.tiers() != 0)
            .collect();
        let lost: Vec<_> =
            members.iter().filter(|member| stays(member) == 0).map(|member| member.life()).collect();
        lost.into_iter().for_each(|life| lose(lives, life));
        sets.intern(&left)
    }
}

/// The holders of a block that is dropped hold one less.
fn forget(holders: Holders, sets: &Sets, lives: &mut Lives) {
    let mut one = Member::new(0, 0);
    sets.slice(holders, &mut one).iter().for_each(|member| lose(lives, member.life()));
}

fn lose(lives: &mut Lives, life: u16) {
    let blocks = lives.blocks_mut(life);
    *blocks -= 1;
}
