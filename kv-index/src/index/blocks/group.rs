//! Consecutive blocks of a chain, in one cache line.

use bytemuck::{Pod, Zeroable};

use super::super::age::Age;
use crate::{holders::Holders, key::GROUP_BLOCKS};

/// Blocks whose keys have their upper half in common: those that follow one another in a chain, and those of other chains that begin like it.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Group {
    /// The upper half of all keys. Of one that is not in use: where the next such one is.
    pub(super) upper: u32,
    /// Of the first block, since any was stored or expected.
    age: u32,
    /// Blocks with this upper half that found no place here.
    pub(super) spilled: u32,
    /// A bit for each place that is in use.
    used: u32,
    lowers: [u32; GROUP_BLOCKS],
    holders: [u32; GROUP_BLOCKS],
}

const _: () = assert!(size_of::<Group>() == 64, "a cache line");

impl Group {
    pub(super) fn new(upper: u32) -> Self {
        Self { upper, ..Self::default() }
    }

    /// Whether nothing is here or belongs here.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.used == 0 && self.spilled == 0
    }

    /// Where the block with this lower half of its key is. Compared without a branch, as no branch predictor could know it.
    #[inline]
    pub(super) fn find(&self, lower: u32) -> Option<usize> {
        let same =
            self.lowers.iter().enumerate().fold(0, |same, (at, here)| same | u32::from(*here == lower) << at);
        let found = same & self.used;
        (found != 0).then(|| found.trailing_zeros() as usize)
    }

    /// Puts in a block that is not here, held by nobody, if there is a place.
    #[inline]
    pub(super) fn insert(&mut self, lower: u32) -> Option<usize> {
        let place = (!self.used).trailing_zeros() as usize;
        *self.lowers.get_mut(place)? = lower;
        self.holders[place] = Holders::NOBODY.bits();
        self.used |= 1 << place;
        Some(place)
    }

    #[inline]
    pub(super) fn remove(&mut self, place: usize) {
        self.used &= !(1 << place);
    }

    #[inline]
    pub(super) fn holders(&self, place: usize) -> Holders {
        Holders::from_bits(self.holders[place])
    }

    #[inline]
    pub(super) fn set_holders(&mut self, place: usize, holders: Holders) {
        self.holders[place] = holders.bits();
    }

    #[inline]
    pub(super) fn age(&self, place: usize) -> Age {
        Age::from_bits(self.age).deeper(position(self.lowers[place]))
    }

    #[inline]
    pub(super) fn set_age(&mut self, place: usize, age: Age) {
        self.age = age.less_deep(position(self.lowers[place])).bits();
    }

    /// Places that are in use.
    pub(super) fn places(&self) -> impl Iterator<Item = usize> + use<> {
        let used = self.used;
        (0..GROUP_BLOCKS).filter(move |place| used >> place & 1 != 0)
    }
}

/// Of a block in its group.
#[inline]
fn position(lower: u32) -> u32 {
    crate::key::position(u64::from(lower)) as u32
}
