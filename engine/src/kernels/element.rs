//! The two element types that matrices, matrix operands and the KV cache are made of.

use half::bf16;

use super::{Isa, attention, buffer::Bits, gemm, heads, mxfp4};
#[cfg(target_arch = "x86_64")]
use super::{attention_avx512, gemm_avx512, heads_avx512, mxfp4_avx512};
use crate::{kv::Dtype, model::Tensor};

/// Lanes of a packed panel: outputs that are computed side by side.
pub(crate) const LANES: usize = 16;

/// bf16 or f32. Sums are f32 for both.
pub(crate) trait Element: Bits + Default + PartialEq + std::fmt::Debug {
    /// Its name.
    const DTYPE: Dtype;
    /// Neighbouring elements of a weight row that lie together in a packed panel (what one dot-product instruction eats).
    const GROUP: usize;

    /// Exact.
    fn to_f32(self) -> f32;

    /// Rounds to nearest even.
    fn from_f32(x: f32) -> Self;

    /// Element `within` of each lane's group; `step` holds `LANES * GROUP` elements.
    fn lanes(step: &[Self], within: usize) -> [f32; LANES];

    /// Elements of a stored tensor from `start` on.
    fn read(tensor: &Tensor<'_>, start: usize, out: &mut [Self]);

    /// The matrix kernel for this type.
    fn gemm(isa: Isa) -> gemm::Kernel<Self> {
        gemm::panels(isa)
    }

    /// The attention kernel for this type.
    fn attention(isa: Isa) -> attention::Kernel<Self> {
        attention::tiles(isa)
    }

    /// The kernel of a row's heads for this type.
    fn heads(isa: Isa) -> heads::Kernel<Self> {
        heads::one_row(isa)
    }

    /// The kernel that unpacks four-bit weights to this type.
    fn unpack(isa: Isa) -> mxfp4::Kernel<Self> {
        mxfp4::unpack(isa)
    }
}

impl Element for f32 {
    const DTYPE: Dtype = Dtype::F32;
    const GROUP: usize = 1;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        x
    }

    #[inline(always)]
    fn lanes(step: &[Self], _within: usize) -> [f32; LANES] {
        std::array::from_fn(|lane| step[lane])
    }

    fn read(tensor: &Tensor<'_>, start: usize, out: &mut [Self]) {
        tensor.read_f32(start, out);
    }
}

impl Element for bf16 {
    const DTYPE: Dtype = Dtype::Bf16;
    const GROUP: usize = 2;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    /// `half`'s conversion without its branch: NaN stays NaN because the quiet bit is set.
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        let bits = x.to_bits();
        // Only the bits of a NaN can overflow, and then the sum is not used.
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        let nan = (bits >> 16) | 0x40;
        Self::from_bits(if x.is_nan() { nan } else { rounded } as u16)
    }

    #[inline(always)]
    fn lanes(step: &[Self], within: usize) -> [f32; LANES] {
        std::array::from_fn(|lane| step[2 * lane + within].to_f32())
    }

    fn read(tensor: &Tensor<'_>, start: usize, out: &mut [Self]) {
        tensor.read_bf16(start, out);
    }

    fn gemm(isa: Isa) -> gemm::Kernel<Self> {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => gemm_avx512::kernel,
            _ => gemm::panels(isa),
        }
    }

    fn attention(isa: Isa) -> attention::Kernel<Self> {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => attention_avx512::kernel,
            _ => attention::tiles(isa),
        }
    }

    fn heads(isa: Isa) -> heads::Kernel<Self> {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => heads_avx512::kernel,
            _ => heads::one_row(isa),
        }
    }

    fn unpack(isa: Isa) -> mxfp4::Kernel<Self> {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => mxfp4_avx512::kernel,
            _ => mxfp4::unpack(isa),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_to_bf16_agrees_with_half() {
        let interesting =
            [0u32, 0x8000_0000, 0x3f80_7fff, 0x3f80_8000, 0x3f81_8000, 0x7f7f_ffff, 0x7f80_0000, 1];
        let many = (0..1_000_000u32).map(|i| i.wrapping_mul(4_294_967));
        for bits in interesting.into_iter().chain(many) {
            let x = f32::from_bits(bits);
            let (ours, theirs) = (<bf16 as Element>::from_f32(x), bf16::from_f32(x));
            assert!(ours.to_bits() == theirs.to_bits() || x.is_nan() && ours.is_nan(), "{bits:#x}");
        }
    }
}
