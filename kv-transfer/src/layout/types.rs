//! The facts of a layout.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// Element type of the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvDtype {
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    Bf16,
    /// 8-bit float, 4 bits of exponent, no infinities.
    Fp8E4m3,
    /// 8-bit float, 5 bits of exponent.
    Fp8E5m2,
    /// 8-bit integer; its scales are the model's affair.
    Int8,
}

impl KvDtype {
    const ALL: [Self; 6] = [Self::F32, Self::F16, Self::Bf16, Self::Fp8E4m3, Self::Fp8E5m2, Self::Int8];

    /// Bytes of an element.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Fp8E4m3 | Self::Fp8E5m2 | Self::Int8 => 1,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Fp8E4m3 => "fp8_e4m3",
            Self::Fp8E5m2 => "fp8_e5m2",
            Self::Int8 => "int8",
        }
    }
}

impl fmt::Display for KvDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An element type that there is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown KV dtype `{name}`: use f32, f16, bf16, fp8_e4m3, fp8_e5m2 or int8")]
pub struct UnknownDtype {
    /// What was asked for.
    pub name: String,
}

impl FromStr for KvDtype {
    type Err = UnknownDtype;

    fn from_str(text: &str) -> Result<Self, UnknownDtype> {
        let found = Self::ALL.into_iter().find(|dtype| dtype.name() == text);
        found.ok_or_else(|| UnknownDtype { name: text.to_owned() })
    }
}

/// Where K and V of a block lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvPlacement {
    /// K of a block, then its V: `[layers][blocks][2]`.
    Joined,
    /// K of all blocks of a layer, then V of all: `[layers][2][blocks]`.
    Split,
    /// One tensor that is both (multi-head latent attention): `[layers][blocks]`.
    Latent,
}

impl KvPlacement {
    /// Tensors of a block: K and V, or the one that is both.
    #[must_use]
    pub const fn tensors(self) -> u32 {
        match self {
            Self::Joined | Self::Split => 2,
            Self::Latent => 1,
        }
    }
}

/// The order of a block's dimensions within K or V; the elements of a head are always together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvOrder {
    /// `[tokens][heads][head_dim]`.
    Nhd,
    /// `[heads][tokens][head_dim]`.
    Hnd,
}

/// A worker's place among those that hold a model together, each some of its heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TensorParallel {
    /// Of this worker, from 0.
    pub rank: u32,
    /// Workers in all. With more of them than KV heads each head is held by several.
    pub size: u32,
}

impl TensorParallel {
    /// One worker with all heads.
    pub const SINGLE: Self = Self { rank: 0, size: 1 };
}

/// How the KV cache of one worker is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KvLayout {
    /// Transformer layers that own KV.
    pub layers: u32,
    /// KV heads of a layer of the whole model.
    pub kv_heads: u32,
    /// Elements of a head.
    pub head_dim: u32,
    /// Tokens that a block holds.
    pub block_tokens: u32,
    /// Element type.
    pub dtype: KvDtype,
    /// Where K and V lie.
    pub placement: KvPlacement,
    /// The order within a block.
    pub order: KvOrder,
    /// Which of the heads are here.
    pub tensor_parallel: TensorParallel,
}

/// Two workers that cannot exchange KV, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is `{ours}` here and `{theirs}` there")]
pub struct Mismatch {
    /// Which property differs.
    pub field: &'static str,
    /// Its value here.
    pub ours: String,
    /// Its value at the peer.
    pub theirs: String,
}

impl KvLayout {
    /// The heads that this worker holds, as the model numbers them.
    #[must_use]
    pub fn heads(&self) -> Range<u32> {
        let TensorParallel { rank, size } = self.tensor_parallel;
        if size <= self.kv_heads {
            let each = self.kv_heads / size;
            rank * each..(rank + 1) * each
        } else {
            let head = rank / (size / self.kv_heads);
            head..head + 1
        }
    }

    /// Bytes of one head of one token.
    #[must_use]
    pub fn row_bytes(&self) -> u64 {
        u64::from(self.head_dim) * self.dtype.bytes()
    }

    /// Bytes of K, or of V, of one block in one layer.
    #[must_use]
    pub fn tensor_bytes(&self) -> u64 {
        u64::from(self.block_tokens) * self.heads().len() as u64 * self.row_bytes()
    }

    /// Bytes of one block in one layer.
    #[must_use]
    pub fn block_bytes(&self) -> u64 {
        u64::from(self.placement.tensors()) * self.tensor_bytes()
    }

    /// Blocks that hold `tokens` tokens.
    #[must_use]
    pub fn blocks_for(&self, tokens: u32) -> u32 {
        tokens.div_ceil(self.block_tokens)
    }

    /// The first impossible number, by name.
    pub(crate) fn first_fault(&self) -> Option<&'static str> {
        let TensorParallel { rank, size } = self.tensor_parallel;
        let faults = [
            ("layers", self.layers == 0),
            ("kv_heads", self.kv_heads == 0),
            ("head_dim", self.head_dim == 0),
            ("block_tokens", self.block_tokens == 0),
            ("tensor_parallel", size == 0 || rank >= size),
        ];
        let zero = faults.into_iter().find(|&(_, faulty)| faulty).map(|(name, _)| name);
        let uneven = || {
            let (more, fewer) = (size.max(self.kv_heads), size.min(self.kv_heads));
            (!more.is_multiple_of(fewer)).then_some("tensor_parallel")
        };
        zero.or_else(uneven)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: KvLayout = KvLayout {
        layers: 2,
        kv_heads: 8,
        head_dim: 64,
        block_tokens: 16,
        dtype: KvDtype::Bf16,
        placement: KvPlacement::Joined,
        order: KvOrder::Hnd,
        tensor_parallel: TensorParallel::SINGLE,
    };

    #[test]
    fn dtypes_read_back_as_written() {
        for dtype in KvDtype::ALL {
            assert_eq!(dtype.to_string().parse(), Ok(dtype));
        }
        assert!("bfloat".parse::<KvDtype>().is_err());
    }

    #[test]
    fn ranks_hold_every_head_and_replicate_when_they_are_more() {
        for size in [1, 2, 4, 8, 16, 32] {
            let mut held = [0; 8];
            for rank in 0..size {
                let layout = KvLayout { tensor_parallel: TensorParallel { rank, size }, ..LAYOUT };
                assert_eq!(layout.first_fault(), None);
                layout.heads().for_each(|head| held[head as usize] += 1);
            }
            assert_eq!(held, [size.max(8) / 8; 8], "{size} ranks");
        }
    }

    #[test]
    fn impossible_layouts_are_named() {
        let parallel = |rank, size| KvLayout { tensor_parallel: TensorParallel { rank, size }, ..LAYOUT };
        let faults = [
            ("layers", KvLayout { layers: 0, ..LAYOUT }),
            ("head_dim", KvLayout { head_dim: 0, ..LAYOUT }),
            ("block_tokens", KvLayout { block_tokens: 0, ..LAYOUT }),
            ("tensor_parallel", parallel(0, 0)),
            ("tensor_parallel", parallel(2, 2)),
            ("tensor_parallel", parallel(0, 3)),
            ("tensor_parallel", parallel(0, 12)),
        ];
        for (name, layout) in faults {
            assert_eq!(layout.first_fault(), Some(name));
        }
    }
}
