//! Sets of two or more holders, each stored once.
//!
//! A set's sum is the exclusive or of a number for each member, so the sum of a set with a member more, less or other follows without
//! looking at the rest, and finds it if it is there. Two different sets of one sum are as unlikely as two equal 64-bit hashes, and
//! would only cost time, as a wrong key does.
//!
//! Changes come in runs, as workers store and drop chains: the last one is remembered.

use std::collections::HashMap;

use super::{Holders, Life, Member, TOLD, Tiers, Who};
use crate::key::fold;

/// What happens to a life's tiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It said that it has the block there; this ends guesses.
    Store(Tiers),
    /// It said that it has it there no more.
    Remove(Tiers),
    /// It will probably have it; nothing new if it said that it does.
    Guess(Tiers),
}

impl Change {
    #[inline]
    fn of(self, tiers: Tiers) -> Tiers {
        match self {
            Self::Store(tier) => (tiers & TOLD) | tier,
            Self::Remove(tier) => tiers & !tier,
            Self::Guess(_) if tiers & TOLD != 0 => tiers,
            Self::Guess(guess) => tiers | guess,
        }
    }
}

struct Set {
    /// By life.
    members: Box<[Member]>,
    sum: u64,
    /// Blocks that name it.
    blocks: u32,
}

/// A change and what came of it.
#[derive(Clone, Copy)]
struct Changed {
    from: Holders,
    life: Life,
    change: Change,
    to: Holders,
    before: Tiers,
    after: Tiers,
}

#[derive(Default)]
pub(crate) struct Sets {
    /// By number; the first is not used.
    sets: Vec<Set>,
    free: Vec<u32>,
    by_sum: HashMap<u64, u32>,
    last: Option<Changed>,
    bytes: usize,
    scratch: Vec<Member>,
}

impl Sets {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.by_sum.len()
    }

    /// Memory for them, roughly.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    #[inline]
    pub(crate) fn members(&self, set: u32) -> &[Member] {
        &self.sets[set as usize].members
    }

    /// Those of `holders`; `one` is where a single one is put.
    #[inline]
    pub(crate) fn slice<'a>(&'a self, holders: Holders, one: &'a mut Member) -> &'a [Member] {
        match holders.who() {
            Who::Nobody => &[],
            Who::One(member) => {
                *one = member;
                std::slice::from_ref(one)
            }
            Who::Set(set) => self.members(set),
        }
    }

    /// For a block that is held by `from`: by whom after `life` changed, and the life's tiers before and after.
    #[inline]
    pub(crate) fn change(&mut self, from: Holders, life: Life, change: Change) -> (Holders, Tiers, Tiers) {
        if let Some(last) = &self.last
            && (last.from, last.life, last.change) == (from, life, change)
        {
            let Changed { to, before, after, .. } = *last;
            if to != from {
                self.acquire(to);
                self.release(from);
            }
            return (to, before, after);
        }
        self.change_anew(from, life, change)
    }

    fn change_anew(&mut self, from: Holders, life: Life, change: Change) -> (Holders, Tiers, Tiers) {
        let mut one = Member(0);
        let members = self.slice(from, &mut one);
        let at = members.partition_point(|member| member.life() < life);
        let old = members.get(at).filter(|member| member.life() == life).copied();
        let before = old.map_or(0, Member::tiers);
        let after = change.of(before);
        let to = if after == before {
            from
        } else {
            let new = (after != 0).then(|| Member::new(life, after));
            self.replace(from, at, old, new)
        };
        self.last = Some(Changed { from, life, change, to, before, after });
        if to != from {
            self.acquire(to);
            self.release(from);
        }
        (to, before, after)
    }

    /// `from` with another member at a place, or none.
    fn replace(&mut self, from: Holders, at: usize, old: Option<Member>, new: Option<Member>) -> Holders {
        let (sum, len) = match from.who() {
            Who::Nobody => (0, 0),
            Who::One(member) => (number(member), 1),
            Who::Set(set) => (self.sets[set as usize].sum, self.members(set).len()),
        };
        let sum = sum ^ old.map_or(0, number) ^ new.map_or(0, number);
        let len = len + usize::from(new.is_some()) - usize::from(old.is_some());
        if len > 1
            && let Some(set) = self.by_sum.get(&sum)
        {
            return Holders::set(*set);
        }
        let mut members = std::mem::take(&mut self.scratch);
        members.clear();
        let mut one = Member(0);
        members.extend_from_slice(self.slice(from, &mut one));
        match (old, new) {
            (Some(_), Some(new)) => members[at] = new,
            (Some(_), None) => drop(members.remove(at)),
            (None, Some(new)) => members.insert(at, new),
            (None, None) => {}
        }
        let to = self.intern(&members);
        self.scratch = members;
        to
    }

    /// The holders that are these members, in order of their lives. Whoever gets them has to [`Self::acquire`] them.
    pub(crate) fn intern(&mut self, members: &[Member]) -> Holders {
        match members {
            [] => Holders::NOBODY,
            [member] => Holders::one(*member),
            _ => {
                let sum = members.iter().fold(0, |sum, member| sum ^ number(*member));
                match self.by_sum.get(&sum) {
                    Some(set) => Holders::set(*set),
                    None => self.add(Set { members: members.into(), sum, blocks: 0 }),
                }
            }
        }
    }

    fn add(&mut self, set: Set) -> Holders {
        self.bytes += bytes(&set);
        let sum = set.sum;
        let at = match self.free.pop() {
            Some(free) => {
                self.sets[free as usize] = set;
                free
            }
            None => {
                if self.sets.is_empty() {
                    self.sets.push(Set { members: Box::default(), sum: 0, blocks: 0 });
                }
                self.sets.push(set);
                (self.sets.len() - 1) as u32
            }
        };
        self.by_sum.insert(sum, at);
        Holders::set(at)
    }

    /// One more block is held by them.
    #[inline]
    pub(crate) fn acquire(&mut self, holders: Holders) {
        if let Who::Set(set) = holders.who() {
            self.sets[set as usize].blocks += 1;
        }
    }

    /// One block less is held by them.
    #[inline]
    pub(crate) fn release(&mut self, holders: Holders) {
        if let Who::Set(number) = holders.who() {
            let set = &mut self.sets[number as usize];
            set.blocks -= 1;
            if set.blocks == 0 {
                self.drop_set(number);
            }
        }
    }

    #[cold]
    fn drop_set(&mut self, number: u32) {
        let set = &mut self.sets[number as usize];
        self.bytes -= bytes(set);
        self.by_sum.remove(&set.sum);
        set.members = Box::default();
        self.free.push(number);
        // Its number may come to mean another set.
        let gone = Holders::set(number);
        if self.last.is_some_and(|last| last.from == gone || last.to == gone) {
            self.last = None;
        }
    }
}

/// With its places in the list and in the map, each as full as a third.
fn bytes(set: &Set) -> usize {
    size_of_val(&*set.members) + 16 + 2 * size_of::<Set>() + 2 * size_of::<(u64, u32)>()
}

fn number(member: Member) -> u64 {
    fold(u64::from(member.0) ^ 0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93)
}
