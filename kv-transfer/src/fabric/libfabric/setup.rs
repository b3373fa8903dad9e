//! What is decided once, when a fabric is opened: memory, keys, the queue's size.

use super::info::{EFA, Facts};
use crate::engine::PEER_SHARE;
use crate::memory::Mapping;

/// Largest completion queue that is asked for; a provider that has no such large one is asked for less.
const MAX_QUEUE_ENTRIES: usize = 1 << 16;

/// Our own operations, and the immediates of peers: each may have its share of its own credits on the way to us, and theirs
/// are as many as ours where machines are alike. No provider protects the queue from more (efa says it does, and does not).
pub(super) fn queue_entries(depth: usize, peers: usize) -> usize {
    let incoming = peers.saturating_mul((depth / PEER_SHARE).max(1));
    depth.saturating_add(incoming).min(MAX_QUEUE_ENTRIES.max(2 * depth))
}

/// A pool on reserved huge pages if asked for and there are enough, else on ordinary ones that are asked to be huge: a NIC's
/// registration of a large pool in 4 KiB pages takes long, or fails.
pub(super) fn allocate(bytes: usize, huge_pages: bool) -> std::io::Result<Mapping> {
    if huge_pages {
        match Mapping::anonymous_huge(bytes) {
            Ok(mapping) => return Ok(mapping),
            Err(error) => tracing::warn!(%error, bytes, "no huge pages for the KV pool, using ordinary ones"),
        }
    }
    Mapping::anonymous(bytes)
}

/// This crate never sets it, and the variable is libfabric's own: an operator may have, for another program's sake.
pub(super) fn warn_of_fork_safety(facts: &Facts) {
    if facts.provider == EFA && std::env::var_os("FI_EFA_FORK_SAFE").is_some() {
        tracing::warn!(
            "FI_EFA_FORK_SAFE is set: the efa provider then does without huge pages, and refuses to register them; from \
             Linux 5.15 on, forking needs no such help"
        );
    }
}

/// A key that is hard to guess, where we may choose it.
pub(super) fn wanted_key(facts: &Facts) -> u64 {
    if facts.provider_keys {
        return 0;
    }
    let bits = (facts.key_bytes * 8).clamp(1, 64) as u32;
    rand::random::<u64>() >> (64 - bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_holds_what_is_in_flight_and_what_peers_may_send() {
        assert_eq!(queue_entries(64, 1), 64 + 16);
        assert_eq!(queue_entries(64, 256), 64 + 256 * 16);
        assert_eq!(queue_entries(1, 2), 3, "a share is at least one");
        assert_eq!(queue_entries(4096, 256), MAX_QUEUE_ENTRIES, "of p5's NIC: bounded");
        assert_eq!(queue_entries(1 << 17, 256), 1 << 18, "never less than our own, twice");
    }

    #[test]
    fn a_pool_is_had_with_and_without_huge_pages() {
        for huge_pages in [false, true] {
            let mapping = allocate((2 << 20) + 4096, huge_pages).unwrap();
            mapping.copy_in((2 << 20) + 4095, &[7]);
            let mut byte = [0];
            mapping.copy_out((2 << 20) + 4095, &mut byte);
            assert_eq!((mapping.len(), byte), ((2 << 20) + 4096, [7]));
        }
    }
}
