//! Where short pieces travel together.
//!
//! A fabric that writes one contiguous range at a time is slow at many short ones. So a sender gathers what belongs to some
//! units of a layer into a chunk of its own registered memory, writes the chunk with one write into a chunk that the receiver
//! granted it, and the receiver scatters it into its blocks. Chunks lie behind the pool, in the same registration:
//!
//! ```text
//!   pool │ receive chunks │ send chunks │ scratch          chunk: header │ unit │ unit │ …
//! ```
//! Receive chunks are granted one by one and in turn, to senders that said how many they can use now; a chunk is granted again
//! when it is scattered. So a full receiver makes its senders wait, and a sender that computes holds none. The scratch bytes at
//! the end are no transfer's: who connects reads a peer's into its own, and so knows that the path works, and that it is warm.

/// Where the units begin.
pub(crate) const HEADER_BYTES: u64 = 512;
/// Units whose numbers have room in the header.
const MAX_UNITS: u32 = (HEADER_BYTES as u32 - 8) / 4;
/// Of a node's region that hold nothing.
pub(crate) const SCRATCH_BYTES: u64 = 64;
/// Chunks that a sender may ask for ahead.
pub(crate) const CHUNKS_AHEAD: u32 = 4;

/// The memory that a fabric registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) pool_bytes: u64,
    /// In each direction.
    pub(crate) chunks: u32,
    pub(crate) chunk_bytes: u64,
}

impl Region {
    pub(crate) fn bytes(&self) -> u64 {
        self.scratch() + SCRATCH_BYTES
    }

    /// Where the bytes are that mean nothing.
    pub(crate) fn scratch(&self) -> u64 {
        self.send_chunk(self.chunks)
    }

    /// Where a chunk that peers write starts.
    pub(crate) fn receive_chunk(&self, chunk: u32) -> u64 {
        self.pool_bytes.next_multiple_of(4096) + u64::from(chunk) * self.chunk_bytes
    }

    /// Where a chunk that is written from starts.
    pub(crate) fn send_chunk(&self, chunk: u32) -> u64 {
        self.receive_chunk(self.chunks + chunk)
    }

    /// A region off the wire, if it is one that can be.
    pub(crate) fn checked(pool_bytes: u64, chunks: u32, chunk_bytes: u64) -> Result<Self, String> {
        let all = u64::from(chunks).checked_mul(2).and_then(|both| both.checked_mul(chunk_bytes));
        let end = all.and_then(|all| all.checked_add(pool_bytes)).and_then(|end| end.checked_add(4096));
        let sound = end.is_some_and(|end| end < isize::MAX as u64 - SCRATCH_BYTES)
            && (chunks == 0 || chunk_bytes > HEADER_BYTES);
        let region = Self { pool_bytes, chunks, chunk_bytes };
        if sound {
            Ok(region)
        } else {
            Err(format!("staging of {chunks} chunks of {chunk_bytes} bytes cannot be"))
        }
    }
}

/// What the chunk at hand holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) layer: u32,
    pub(crate) units: Vec<u32>,
}

/// Units in a chunk that has room for so many in its payload.
pub(crate) fn units_per_chunk(by_payload: u32) -> u32 {
    by_payload.min(MAX_UNITS)
}

impl Header {
    pub(crate) fn encode(
        layer: u32,
        units: impl Iterator<Item = u32>,
        into: &mut [u8; HEADER_BYTES as usize],
    ) {
        let mut count = 0;
        for (unit, place) in units.zip(into[8..].chunks_exact_mut(4)) {
            place.copy_from_slice(&unit.to_le_bytes());
            count += 1u32;
        }
        into[..4].copy_from_slice(&layer.to_le_bytes());
        into[4..8].copy_from_slice(&count.to_le_bytes());
    }

    /// Reads a header that a peer wrote, for a transfer of so many layers and units into chunks of so many.
    pub(crate) fn decode(
        bytes: &[u8; HEADER_BYTES as usize],
        layers: u32,
        units: u32,
        room: u32,
    ) -> Result<Self, String> {
        let (words, _) = bytes.as_chunks::<4>();
        let word = |at: usize| u32::from_le_bytes(words[at]);
        let (layer, count) = (word(0), word(1));
        if layer >= layers || count == 0 || count > units_per_chunk(room) {
            return Err(format!("it is of layer {layer} and holds {count} units"));
        }
        let named: Vec<u32> = (0..count as usize).map(|i| word(2 + i)).collect();
        match named.iter().find(|&&unit| unit >= units) {
            Some(unit) => Err(format!("it holds unit {unit} of {units}")),
            None => Ok(Self { layer, units: named }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn headers_read_back_as_written(layer in 0u32..9, units in prop::collection::vec(0u32..500, 1..=MAX_UNITS as usize)) {
            let mut bytes = [0xff; HEADER_BYTES as usize];
            Header::encode(layer, units.iter().copied(), &mut bytes);
            prop_assert_eq!(Header::decode(&bytes, 9, 500, 1000), Ok(Header { layer, units: units.clone() }));
            let most = units.iter().copied().max().unwrap_or(0);
            prop_assert!(Header::decode(&bytes, layer, 500, 1000).is_err());
            prop_assert!(Header::decode(&bytes, 9, most, 1000).is_err());
            prop_assert!(Header::decode(&bytes, 9, 500, units.len() as u32 - 1).is_err());
        }

        #[test]
        fn any_bytes_are_a_sound_header_or_refused(words in prop::collection::vec(0u32..70, 128)) {
            let mut bytes = [0; HEADER_BYTES as usize];
            bytes.chunks_exact_mut(4).zip(words).for_each(|(place, word)| place.copy_from_slice(&word.to_le_bytes()));
            if let Ok(header) = Header::decode(&bytes, 30, 40, 50) {
                prop_assert!(header.layer < 30 && !header.units.is_empty() && header.units.len() <= 50);
                prop_assert!(header.units.iter().all(|&unit| unit < 40));
            }
        }
    }

    #[test]
    fn chunks_lie_behind_the_pool_and_in_the_region() {
        let region = Region { pool_bytes: 5000, chunks: 3, chunk_bytes: 1024 };
        assert_eq!((region.receive_chunk(0), region.send_chunk(0)), (8192, 8192 + 3 * 1024));
        assert_eq!((region.scratch(), region.bytes()), (8192 + 6 * 1024, 8192 + 6 * 1024 + SCRATCH_BYTES));
        assert_eq!(Region::checked(5000, 3, 1024), Ok(region));
        for (chunks, bytes) in [(3, 512), (u32::MAX, u64::MAX), (1, isize::MAX as u64)] {
            Region::checked(5000, chunks, bytes).unwrap_err();
        }
        assert_eq!(Region::checked(5000, 0, 0).unwrap().bytes(), 8192 + SCRATCH_BYTES);
    }
}
