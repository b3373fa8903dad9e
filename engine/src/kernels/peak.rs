//! What the arithmetic units can do when nothing has to be loaded: the limit that products are measured against.

use super::{
    Isa,
    arith::{Arith, multiversion},
};

/// What computes a product.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) enum Unit {
    /// f32 multiply and add.
    #[default]
    Fma,
    /// Dot products of pairs of bf16.
    Bf16Dot,
    /// Dot products of four eight-bit numbers.
    Int8Dot,
}

/// Registers of sums side by side: enough to hide the latency of an instruction.
#[cfg(target_arch = "x86_64")]
pub(super) const CHAINS: usize = 16;
/// Sums side by side where the compiler chooses the registers: as many as are left in AVX2's.
const SUMS: usize = 96;

/// A loop of nothing but products: `rounds` of [`Peak::operations`].
#[derive(Clone, Copy)]
pub(crate) struct Peak {
    pub(crate) run: fn(usize),
    /// Multiplications and additions of a round.
    pub(crate) operations: usize,
}

impl Peak {
    /// The loop of `unit`, or of what stands in for it where `isa` does not have it.
    pub(crate) fn of(isa: Isa, unit: Unit) -> Self {
        #[cfg(target_arch = "x86_64")]
        if isa == Isa::Avx512Bf16 {
            use super::peak_avx512::{BF16, F32, INT8};
            return match unit {
                Unit::Fma => F32,
                Unit::Bf16Dot => BF16,
                Unit::Int8Dot => INT8,
            };
        }
        let _ = unit;
        Self { run: fma(isa), operations: 2 * SUMS }
    }
}

multiversion! {
    fn fma(rounds: usize) = fma_body;
}

#[inline(always)]
fn fma_body<A: Arith>(rounds: usize) {
    let (a, b) = std::hint::black_box((0.5f32, 1.0f32));
    let mut sums = [0.0f32; SUMS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = A::mul_add(a, *sum, b);
        }
    }
    std::hint::black_box(sums);
}
