//! Who holds a block: 32 bits for each block, whoever many they are.
//!
//! Most blocks are held by one worker, which fits into the 32 bits. Others name a set in [`Sets`]. Sets are shared: the blocks of a system
//! prompt that hundreds of workers hold name one and the same set.

mod sets;

pub(crate) use sets::{Change, Sets};

/// One life of a worker's cache. What it held counts no more after it ended: a restart or a cleared cache begins another one.
pub(crate) type Life = u16;

/// In which memory, or as a guess of which age: a bit for each.
pub(crate) type Tiers = u8;

/// The bits of what a worker has said.
pub(crate) const TOLD: Tiers = 0b111;
/// The bits of guesses, one for each period of time.
pub(crate) const GUESSES: [Tiers; 3] = [1 << 3, 1 << 4, 1 << 5];

/// A holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member(u32);

impl Member {
    pub(crate) fn new(life: Life, tiers: Tiers) -> Self {
        Self(u32::from(life) | u32::from(tiers) << 16)
    }

    #[inline]
    pub(crate) fn life(self) -> Life {
        self.0 as Life
    }

    #[inline]
    pub(crate) fn tiers(self) -> Tiers {
        (self.0 >> 16) as Tiers
    }
}

/// All holders of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Holders(u32);

/// What [`Holders`] stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Nobody,
    One(Member),
    /// A set of two or more.
    Set(u32),
}

/// Set if the other bits are a member instead of a set's number, which is not 0.
const ONE: u32 = 1 << 31;

impl Holders {
    pub(crate) const NOBODY: Self = Self(0);

    #[inline]
    pub(crate) fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    #[inline]
    pub(crate) fn bits(self) -> u32 {
        self.0
    }

    pub(crate) fn one(member: Member) -> Self {
        if member.tiers() == 0 { Self::NOBODY } else { Self(member.0 | ONE) }
    }

    fn set(number: u32) -> Self {
        debug_assert!(number != 0 && number & ONE == 0);
        Self(number)
    }

    #[inline]
    pub(crate) fn who(self) -> Who {
        match self.0 {
            0 => Who::Nobody,
            bits if bits & ONE != 0 => Who::One(Member(bits & !ONE)),
            number => Who::Set(number),
        }
    }
}
