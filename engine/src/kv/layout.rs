//! Shape of the paged KV cache: which byte belongs to which layer, block, head, token and element.

use std::fmt;

/// Index of a KV block within a pool; the same index names one piece in every layer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct BlockId(pub u32);

/// Element type of activations, weights at rest and the KV cache.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Dtype {
    /// bfloat16: the default; weights, KV cache and matrix operands are bf16, sums are f32.
    Bf16,
    /// IEEE single: for exact comparison with a reference; twice the memory.
    F32,
}

impl Dtype {
    /// Bytes of one element.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Bf16 => 2,
            Self::F32 => 4,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
        })
    }
}

/// Shape of one KV pool.
///
/// ```text
/// pool   [layers][blocks] of pieces          neighbouring blocks of a layer are neighbours in memory
/// piece  K [kv_heads][block_tokens][head_dim], then V of the same shape
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KvLayout {
    /// Transformer layers.
    pub layers: usize,
    /// KV heads of a layer.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Tokens that a block holds.
    pub block_tokens: usize,
    /// Element type.
    pub dtype: Dtype,
}

impl KvLayout {
    /// Bytes of one piece: K and V of one block in one layer.
    pub const fn piece_bytes(&self) -> usize {
        2 * self.kv_heads * self.block_tokens * self.head_dim * self.dtype.bytes()
    }

    /// Bytes of a pool with `blocks` blocks.
    pub const fn pool_bytes(&self, blocks: usize) -> usize {
        self.layers * blocks * self.piece_bytes()
    }

    /// Blocks that hold `tokens` tokens.
    pub const fn blocks_for(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.block_tokens)
    }
}
