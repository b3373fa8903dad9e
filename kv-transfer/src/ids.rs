//! Names of things on the wire: nodes, peers, slots, generations, and the 32-bit immediate that carries the last two.

use std::fmt;

/// One incarnation of a node; a restarted worker has a new one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct NodeId(pub(crate) [u8; 16]);

impl NodeId {
    pub(crate) fn random() -> Self {
        Self(rand::random())
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

/// How often a slot was handed out, modulo 2^16. Slots are reused first in, first out, so a generation comes back
/// after 65,536 x (number of free slots) transfers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Generation(pub(crate) u16);

impl Generation {
    pub(crate) fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
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
        Some(Self { slot: Slot::try_new(slot)?, generation: Generation(u16::try_from(generation).ok()?) })
    }
}

impl fmt::Display for TransferKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot.0, self.generation.0)
    }
}

/// What a write tells its target: `kind:4 | slot:12 | generation:16`. Four bytes, as EFA carries no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Immediate(pub(crate) TransferKey);

/// The one kind there is: payload of a pushed transfer. Zero stays unused so that a zeroed word means nothing.
const KIND_DATA: u32 = 1;

impl Immediate {
    pub(crate) fn encode(self) -> u32 {
        KIND_DATA << 28 | u32::from(self.0.slot.0) << 16 | u32::from(self.0.generation.0)
    }

    /// `None` for a kind that this version does not know.
    pub(crate) fn decode(word: u32) -> Option<Self> {
        let slot = Slot::try_new((word >> 16) & 0xfff)?;
        (word >> 28 == KIND_DATA).then_some(Self(TransferKey { slot, generation: Generation(word as u16) }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn immediates_read_back_as_written(slot in 0u32..4096, generation: u16) {
            let key = TransferKey { slot: Slot::try_new(slot).unwrap(), generation: Generation(generation) };
            prop_assert_eq!(Immediate::decode(Immediate(key).encode()), Some(Immediate(key)));
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
