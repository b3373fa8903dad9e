//! What the arithmetic units can do when nothing has to be loaded: the limit that products are measured against.

use super::{
    Isa,
    arith::{Arith, multiversion},
    element::LANES,
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

/// Sums side by side: enough to hide the latency of an instruction.
pub(super) const CHAINS: usize = 16;

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
            match unit {
                Unit::Bf16Dot => return super::peak_avx512::BF16,
                Unit::Int8Dot => return super::peak_avx512::INT8,
                Unit::Fma => {}
            }
        }
        let _ = unit;
        Self { run: fma(isa), operations: 2 * CHAINS * LANES }
    }
}

multiversion! {
    fn fma(rounds: usize) = fma_body;
}

#[inline(always)]
fn fma_body<A: Arith>(rounds: usize) {
    let (a, b) = std::hint::black_box(([0.5f32; LANES], [1.0f32; LANES]));
    let mut acc = [[0.0f32; LANES]; CHAINS];
    for _ in 0..rounds {
        for acc in &mut acc {
            for lane in 0..LANES {
                acc[lane] = A::mul_add(a[lane], acc[lane], b[lane]);
            }
        }
    }
    std::hint::black_box(acc);
}
