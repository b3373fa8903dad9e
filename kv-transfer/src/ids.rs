//! Names of things on the wire: nodes, peers, slots, generations, and the 32-bit immediate that carries the last two.

use std::fmt;

/// One incarnation of a node; a restarted worker has a new one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct NodeId(pub(crate) [u8; 16]);

impl NodeId {
    pub(crate) fn random() -> Self {
        let (high, low) = (crate::random::number(), crate::random::number());
        Self((u128::from(high) << 64 | u128::from(low)).to_le_bytes())
    }

    pub(crate) fn from_wire(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One connection to a peer in one direction, as the fabric numbers it. Never reused within a node's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PeerId(pub(crate) u64);

/// Index into the receiver's slot table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Slot(u16);

impl Slot {
    /// Slots that fit the immediate.
    pub(crate) const COUNT: usize = 1 << 12;

    pub(crate) fn try_new(index: u32) -> Option<Self> {
        ((index as usize) < Self::COUNT).then_some(Self(index as u16))
    }

    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// How often a slot was handed out, modulo 2^9. Slots are reused first in, first out, so a generation comes back
/// after 512 x (number of free slots) transfers: two million with the default limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Generation(u16);

impl Generation {
    const COUNT: u16 = 1 << 9;

    pub(crate) fn random() -> Self {
        Self(crate::random::number() as u16 % Self::COUNT)
    }

    pub(crate) fn try_new(number: u32) -> Option<Self> {
        u16::try_from(number).ok().filter(|&number| number < Self::COUNT).map(Self)
    }

    pub(crate) fn next(self) -> Self {
        Self((self.0 + 1) % Self::COUNT)
    }

    pub(crate) fn number(self) -> u32 {
        u32::from(self.0)
    }
}

/// The number of a write within its transfer, modulo 2^9.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sequence(u16);

impl Sequence {
    pub(crate) const COUNT: u32 = 1 << 9;

    /// Of the write of that number, from 0.
    pub(crate) fn of(write: u32) -> Self {
        Self((write % Self::COUNT) as u16)
    }

    pub(crate) fn number(self) -> u32 {
        u32::from(self.0)
    }
}

/// A transfer as its receiver names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TransferKey {
    pub(crate) slot: Slot,
    pub(crate) generation: Generation,
}

impl TransferKey {
    /// A key off the wire; `None` when it cannot exist.
    pub(crate) fn from_wire(slot: u32, generation: u32) -> Option<Self> {
        Some(Self { slot: Slot::try_new(slot)?, generation: Generation::try_new(generation)? })
    }
}

impl fmt::Display for TransferKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot.0, self.generation.number())
    }
}

/// What a write tells its target: `kind:2 | slot:12 | generation:9 | sequence:9`. Four bytes, as EFA carries no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Immediate {
    pub(crate) key: TransferKey,
    pub(crate) sequence: Sequence,
}

/// The one kind there is: payload of a pushed transfer. Zero stays unused so that a zeroed word means nothing.
const KIND_DATA: u32 = 1;

impl Immediate {
    pub(crate) fn encode(self) -> u32 {
        let Self { key: TransferKey { slot, generation }, sequence } = self;
        KIND_DATA << 30 | u32::from(slot.0) << 18 | generation.number() << 9 | sequence.number()
    }

    /// `None` for a kind that this version does not know.
    pub(crate) fn decode(word: u32) -> Option<Self> {
        let key = TransferKey::from_wire((word >> 18) & 0xfff, (word >> 9) & 0x1ff)?;
        (word >> 30 == KIND_DATA).then_some(Self { key, sequence: Sequence::of(word & 0x1ff) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn immediates_read_back_as_written(slot in 0u32..4096, generation in 0u32..512, write: u32) {
            let key = TransferKey::from_wire(slot, generation).unwrap();
            let immediate = Immediate { key, sequence: Sequence::of(write) };
            prop_assert_eq!(Immediate::decode(immediate.encode()), Some(immediate));
        }

        #[test]
        fn any_word_decodes_or_is_refused(word: u32) {
            if let Some(immediate) = Immediate::decode(word) {
                prop_assert_eq!(immediate.encode(), word);
            }
        }
    }

    #[test]
    fn a_zeroed_word_means_nothing() {
        assert_eq!(Immediate::decode(0), None);
    }
}
