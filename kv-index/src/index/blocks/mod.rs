//! Who holds a block, and since when: what was stored together lies together.
//!
//! ```text
//!   key     [ upper half: the group ][ lower half, with the position in the group ]
//!   index     upper ─► number
//!   groups    number ─► [ age | 6 lower halves | 6 holders ]        one cache line
//!   spilled   key ─► holders, age                                   for those that found no place in their group
//! ```
//! A chain's keys have their upper half in common for six blocks ([`crate::key`]). So six blocks take two places of memory to find, instead of six,
//! and 14 to 16 bytes each where all are there. Where many chains part, more blocks have the same upper half than there are places: the others
//! are looked up one by one, by their whole keys.
//!
//! The blocks of a group have one age.

mod group;
mod groups;
#[cfg(test)]
mod tests;

use super::age::Age;
use crate::{
    holders::Holders,
    pages::Spares,
    table::{self, Table},
};
use group::Group;
use groups::Groups;

/// Keys that are fetched together: as many as are in about as many groups as a core has memory requests under way.
pub(super) const BATCH: usize = 64;

/// Groups of one part of the blocks, for [`Blocks::retain`].
const PART: usize = 256;

/// Who holds a block, and since when.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub(super) holders: Holders,
    pub(super) age: Age,
}

/// Where a block is, until one comes or leaves.
#[derive(Clone, Copy)]
pub(super) enum Place {
    Group { number: u32, place: usize },
    Spilled(table::Place),
}

/// The group that was looked at last: the next block is probably in it, too.
#[derive(Clone, Copy, Default)]
pub(super) struct Near(u32);

pub(super) struct Blocks {
    index: Table,
    groups: Groups,
    spilled: Table,
    len: usize,
}

impl Blocks {
    /// With 2^`bits` segments of the index.
    pub(super) fn new(bits: u32, spares: &Spares) -> Self {
        let table = || Table::new(bits, spares.clone());
        Self { index: table(), groups: Groups::new(spares.clone()), spilled: table(), len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Entries of tables, and groups.
    pub(super) fn used(&self) -> (usize, usize) {
        (self.index.len() + self.spilled.len(), self.groups.used())
    }

    /// Bytes that `groups` take.
    pub(super) const GROUP_BYTES: usize = size_of::<Group>();

    /// Memory that it has taken.
    pub(super) fn bytes(&self) -> usize {
        self.index.bytes() + self.groups.bytes() + self.spilled.bytes()
    }

    /// Loads what a search for each of these keys looks at first.
    #[inline]
    pub(super) fn fetch(&self, keys: &[u64]) {
        uppers(keys).for_each(|upper| self.index.fetch_one(upper));
    }

    /// Loads what it goes on with, for keys that were fetched some time ago.
    #[inline]
    pub(super) fn fetch_further(&self, keys: &[u64]) {
        let numbers = uppers(keys).filter_map(|upper| self.index.get(upper));
        numbers.filter_map(|number| self.groups.get(number as u32)).for_each(crate::prefetch::prefetch);
    }

    #[inline]
    fn number(&self, key: u64, near: &mut Near) -> Option<u32> {
        let last = self.groups.get(near.0);
        if last.is_some_and(|group| u64::from(group.upper) == key >> 32 && !group.is_empty()) {
            return Some(near.0);
        }
        near.0 = self.index.get(by_upper(key))? as u32;
        Some(near.0)
    }

    #[inline]
    pub(super) fn find(&self, key: u64, near: &mut Near) -> Option<Place> {
        let number = self.number(key, near)?;
        let group = self.groups.group(number);
        match group.find(key as u32) {
            Some(place) => Some(Place::Group { number, place }),
            None if group.spilled == 0 => None,
            None => self.spilled.find(scattered(key)).map(Place::Spilled),
        }
    }

    #[inline]
    pub(super) fn get(&self, key: u64, near: &mut Near) -> Option<Block> {
        self.find(key, near).map(|place| self.block(place))
    }

    #[inline]
    pub(super) fn block(&self, place: Place) -> Block {
        match place {
            Place::Group { number, place } => {
                let group = self.groups.group(number);
                Block { holders: group.holders(place), age: group.age(place) }
            }
            Place::Spilled(place) => Block::from_value(self.spilled.value(place)),
        }
    }

    #[inline]
    pub(super) fn set_holders(&mut self, place: Place, holders: Holders) {
        match place {
            Place::Group { number, place } => self.groups.group_mut(number).set_holders(place, holders),
            Place::Spilled(place) => {
                let value = self.spilled.value_mut(place);
                *value = Block { holders, ..Block::from_value(*value) }.value();
            }
        }
    }

    /// Changes who holds a block, put in if it was not there, and how old it and others of its group are; what `change` gives besides.
    #[inline]
    pub(super) fn update<R>(
        &mut self,
        key: u64,
        age: Age,
        near: &mut Near,
        change: impl FnOnce(Holders) -> (Holders, R),
    ) -> R {
        let number = match self.number(key, near) {
            Some(number) => number,
            None => self.add_group(key, near),
        };
        let group = self.groups.group_mut(number);
        let found = group.find(key as u32);
        let place = match found {
            None if group.spilled == 0 => group.insert(key as u32),
            _ => found,
        };
        let Some(place) = place else { return self.update_in_crowd(key, age, number, change) };
        self.len += usize::from(found.is_none());
        let (holders, result) = change(group.holders(place));
        group.set_holders(place, holders);
        group.set_age(place, age);
        result
    }

    #[cold]
    fn add_group(&mut self, key: u64, near: &mut Near) -> u32 {
        near.0 = self.groups.add((key >> 32) as u32);
        self.index.replace(by_upper(key), u64::from(near.0));
        near.0
    }

    /// [`Self::update`] of a block that is not in its group, where it may have been spilled, or has to be.
    #[cold]
    fn update_in_crowd<R>(
        &mut self,
        key: u64,
        age: Age,
        number: u32,
        change: impl FnOnce(Holders) -> (Holders, R),
    ) -> R {
        let spilled = self.spilled.find(scattered(key));
        self.len += usize::from(spilled.is_none());
        let group = self.groups.group_mut(number);
        if spilled.is_none()
            && let Some(place) = group.insert(key as u32)
        {
            let (holders, result) = change(Holders::NOBODY);
            group.set_holders(place, holders);
            group.set_age(place, age);
            return result;
        }
        group.spilled += u32::from(spilled.is_none());
        let place = spilled.unwrap_or_else(|| self.spilled.place(scattered(key)));
        let value = self.spilled.value_mut(place);
        let (holders, result) = change(Block::from_value(*value).holders);
        *value = Block { holders, age }.value();
        result
    }

    pub(super) fn remove(&mut self, key: u64, place: Place, near: &mut Near) {
        let number = match place {
            Place::Group { number, place } => {
                self.groups.group_mut(number).remove(place);
                number
            }
            Place::Spilled(place) => {
                self.spilled.remove(place);
                let Some(number) = self.number(key, near) else { return };
                self.groups.group_mut(number).spilled -= 1;
                number
            }
        };
        self.len -= 1;
        drop_if_empty(&mut self.index, &mut self.groups, number);
    }

    /// Parts for [`Self::retain`]. More may come while one goes through them, in which nothing is that was there before.
    pub(super) fn parts(&self) -> usize {
        self.spilled.parts() + self.groups.numbers().div_ceil(PART)
    }

    /// That was done with all parts.
    pub(super) fn retained(&mut self) {
        self.spilled.retained();
    }

    /// Of one part keeps the blocks that `left` gives holders for.
    pub(super) fn retain(&mut self, part: usize, mut left: impl FnMut(Block) -> Holders) {
        let Self { index, groups, spilled, len, .. } = self;
        let Some(part) = part.checked_sub(spilled.parts()) else {
            spilled.retain(part, |scattered, value| {
                let block = Block::from_value(*value);
                let holders = left(block);
                *value = Block { holders, ..block }.value();
                if holders == Holders::NOBODY {
                    *len -= 1;
                    if let Some(number) = index.get(by_upper(gathered(scattered))) {
                        groups.group_mut(number as u32).spilled -= 1;
                        drop_if_empty(index, groups, number as u32);
                    }
                }
                holders != Holders::NOBODY
            });
            return;
        };
        for number in part * PART..(part + 1) * PART {
            // All may have gone meanwhile.
            if number >= groups.numbers() {
                return;
            }
            let number = number as u32;
            let group = groups.group_mut(number);
            if group.is_empty() {
                continue;
            }
            for place in group.places() {
                let before = Block { holders: group.holders(place), age: group.age(place) };
                let after = left(before);
                group.set_holders(place, after);
                if after == Holders::NOBODY {
                    group.remove(place);
                    *len -= 1;
                }
            }
            drop_if_empty(index, groups, number);
        }
    }

    /// The ages of about so many blocks, drawn from everywhere, or of all if there are fewer.
    pub(super) fn ages(&self, most: usize) -> Vec<Age> {
        let numbers = self.groups.numbers();
        let step = (self.len / most.max(1)).max(1);
        let grouped = (self.len % step..numbers).step_by(step).flat_map(|number| {
            let group = self.groups.group(number as u32);
            group.places().map(|place| group.age(place))
        });
        // Which segments they are from is as good as drawn.
        let parts = self.spilled.parts();
        let first = self.len % parts;
        let spilled = (0..parts).flat_map(|at| self.spilled.entries((first + at) % parts));
        let spilled = spilled.map(|entry| Block::from_value(entry.value).age);
        grouped.chain(spilled.take(self.spilled.len().div_ceil(step))).collect()
    }
}

impl Block {
    /// One that is not there.
    pub(super) const NOBODY: Self = Self { holders: Holders::NOBODY, age: Age::from_bits(0) };

    #[inline]
    fn from_value(value: u64) -> Self {
        Self { holders: Holders::from_bits(value as u32), age: Age::from_bits((value >> 32) as u32) }
    }

    #[inline]
    fn value(self) -> u64 {
        u64::from(self.holders.bits()) | u64::from(self.age.bits()) << 32
    }
}

/// Key of the index: what all keys of a group have in common; never 0.
#[inline]
fn by_upper(key: u64) -> u64 {
    key >> 32 << 32 | 1
}

/// Keys of the index for these keys, one for those in a row that have the same.
#[inline]
fn uppers(keys: &[u64]) -> impl Iterator<Item = u64> {
    let mut last = 0;
    keys.iter().map(|key| by_upper(*key)).filter(move |upper| std::mem::replace(&mut last, *upper) != *upper)
}

/// Odd, so that another one undoes it.
const SCATTER: u64 = 0x9e37_79b9_7f4a_7c15;
const GATHER: u64 = {
    let mut inverse = SCATTER;
    let mut round = 0;
    while round < 5 {
        inverse = inverse.wrapping_mul(2_u64.wrapping_sub(SCATTER.wrapping_mul(inverse)));
        round += 1;
    }
    inverse
};

/// Another number for each key, the upper bits of which depend on all of the key's.
#[inline]
fn scattered(key: u64) -> u64 {
    key.wrapping_mul(SCATTER)
}

fn gathered(scattered: u64) -> u64 {
    scattered.wrapping_mul(GATHER)
}

fn drop_if_empty(index: &mut Table, groups: &mut Groups, number: u32) {
    let group = groups.group(number);
    if !group.is_empty() {
        return;
    }
    if let Some(place) = index.find(by_upper(u64::from(group.upper) << 32)) {
        index.remove(place);
    }
    groups.free(number);
}
