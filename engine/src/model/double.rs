//! A double of [`Forward`] for tests of everything around the model: no weights, and an answer that depends on every byte of
//! KV cache that a model would have read.

use super::{Forward, LoraAdapter, StepSequence};
use crate::kv::{Adapter, BlockId, KvLayout, KvMemory};

/// Logits are a hash of the keys and values of the whole sequence, read back from the KV pool through the block table.
///
/// Each token writes a hash of what a transformer's would depend on (itself, its position, the adapter, all earlier tokens in the
/// layer below) into each byte of its keys and values. So a wrong block table, a block that somebody else wrote, a layer that
/// was not transferred or a token that was not recomputed gives other tokens.
pub struct HashForward {
    layout: KvLayout,
    memory: KvMemory,
    num_blocks: usize,
    vocab_size: usize,
    max_context_tokens: usize,
    logits: Vec<f32>,
}

impl HashForward {
    /// Bound to as many blocks as `memory` holds.
    pub fn new(layout: KvLayout, memory: KvMemory, vocab_size: usize, max_context_tokens: usize) -> Self {
        let num_blocks = memory.len() / layout.pool_bytes(1);
        Self { layout, memory, num_blocks, vocab_size, max_context_tokens, logits: Vec::new() }
    }

    /// An adapter for it, without weights: another name or revision gives other answers.
    pub fn adapter(name: &str, revision: &str) -> LoraAdapter {
        LoraAdapter::new(Adapter::new(name, revision), 1, 0, Box::new(()))
    }

    /// The rows of a token's keys and values in a layer: offset and length in bytes.
    fn rows(
        &self,
        layer: usize,
        table: &[BlockId],
        position: usize,
    ) -> impl Iterator<Item = (usize, usize)> + use<> {
        let KvLayout { kv_heads, block_tokens, head_dim, dtype, .. } = self.layout;
        let block = table[position / block_tokens].0 as usize;
        assert!(block < self.num_blocks, "block {block} of {}", self.num_blocks);
        let piece = (layer * self.num_blocks + block) * self.layout.piece_bytes();
        let row_bytes = head_dim * dtype.bytes();
        let slot = position % block_tokens;
        (0..2 * kv_heads).map(move |row| (piece + (row * block_tokens + slot) * row_bytes, row_bytes))
    }

    fn write(&mut self, layer: usize, table: &[BlockId], position: usize, hash: u64) {
        for (row, (offset, len)) in self.rows(layer, table, position).enumerate() {
            let bytes = mix(hash ^ row as u64).to_le_bytes();
            for i in 0..len {
                // SAFETY: raw because a peer may write other blocks of the memory meanwhile; `rows` gives offsets of a
                // piece inside the pool, since layer and block are in range, and the pool is as long as `memory`.
                unsafe { self.memory.base().add(offset + i).write(bytes[i % 8]) };
            }
        }
    }

    /// Hash of all keys and values of a layer up to and with `position`.
    fn history(&self, layer: usize, table: &[BlockId], position: usize) -> u64 {
        let mut hash = mix(layer as u64 + 1);
        for position in 0..=position {
            for (offset, len) in self.rows(layer, table, position) {
                for i in 0..len {
                    // SAFETY: as in `write`.
                    let byte = unsafe { self.memory.base().add(offset + i).read() };
                    hash = mix(hash ^ u64::from(byte));
                }
            }
        }
        hash
    }
}

impl Forward for HashForward {
    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn kv_layout(&self) -> KvLayout {
        self.layout
    }

    fn num_blocks(&self) -> usize {
        self.num_blocks
    }

    fn max_context_tokens(&self) -> usize {
        self.max_context_tokens
    }

    fn step(&mut self, batch: &[StepSequence<'_>], on_layer: &mut dyn FnMut(usize)) -> &[f32] {
        for layer in 0..self.layout.layers {
            for sequence in batch {
                let adapter = sequence.adapter.map_or(0, |adapter| adapter.identity().id);
                for (position, token) in (sequence.position..).zip(sequence.tokens) {
                    let below = match layer {
                        0 => mix(mix(adapter) ^ (u64::from(*token) << 32 | position as u64)),
                        _ => self.history(layer - 1, sequence.block_table, position),
                    };
                    self.write(layer, sequence.block_table, position, below);
                }
            }
            on_layer(layer);
        }
        let mut logits = std::mem::take(&mut self.logits);
        logits.clear();
        for sequence in batch {
            let end = sequence.position + sequence.tokens.len();
            for position in end - sequence.wanted_logits..end {
                let hash = self.history(self.layout.layers - 1, sequence.block_table, position);
                // 24 random bits, spread over -8..8.
                let logit = |id| (mix(hash ^ mix(id)) >> 40) as f32 / (1_u64 << 20) as f32 - 8.0;
                logits.extend((0..self.vocab_size as u64).map(logit));
            }
        }
        self.logits = logits;
        &self.logits
    }
}

/// The finaliser of SplitMix64.
fn mix(bits: u64) -> u64 {
    let bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
