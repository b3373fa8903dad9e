//! The kernels of one instruction set and element type: where the instruction set is looked at, once.

use super::{Element, Gate, Isa, attention, gate, gemm, heads, int8, mxfp4, norm};

/// Compiled kernels.
#[derive(Clone, Copy)]
pub(crate) struct Kernels<T> {
    pub(crate) attention: attention::Kernel<T>,
    pub(crate) gate: fn(Gate, &[f32], &mut [T]),
    pub(crate) gemm: gemm::Kernel<T>,
    pub(crate) int8: int8::Kernel,
    pub(crate) quantise: int8::Quantise<T>,
    pub(crate) rms_norm: fn(&[f32], &[f32], f32, &mut [T]),
    pub(crate) split_heads: heads::Kernel<T>,
    pub(crate) unpack: mxfp4::Kernel<T>,
}

impl<T: Element> Kernels<T> {
    /// Those compiled for `isa`, which this CPU has.
    pub(crate) fn of(isa: Isa) -> Self {
        Self {
            attention: T::attention(isa),
            gate: gate::gate(isa),
            gemm: T::gemm(isa),
            int8: int8::kernel(isa),
            quantise: int8::quantise(isa),
            rms_norm: norm::rms_norm(isa),
            split_heads: T::heads(isa),
            unpack: T::unpack(isa),
        }
    }
}
