//! CPU kernels. Each file is one kernel with its plain reference and its test.
//!
//! Every kernel is batch-invariant: what it computes for a row depends on that row's inputs alone, in a fixed order of
//! operations for each [`Isa`], never on how many rows there are or on which thread runs it. Threads share work only
//! along independent outputs.

mod arith;
mod attention;
#[cfg(target_arch = "x86_64")]
mod attention_avx512;
mod buffer;
mod element;
mod gemm;
#[cfg(target_arch = "x86_64")]
mod gemm_avx512;
mod heads;
mod isa;
mod matrix;
mod norm;
mod pool_view;
mod swiglu;
#[cfg(test)]
mod testing;
mod threads;

pub(crate) use attention::{
    AttentionSequence, Scratch as AttentionScratch, Tile as AttentionTile, attention, plan as plan_attention,
};
pub(crate) use buffer::Buffer;
pub(crate) use element::{Element, LANES};
pub(crate) use gemm::{Output, linear};
pub(crate) use heads::{HeadParams, HeadShape, rope_row, split_heads};
pub use isa::Isa;
pub(crate) use matrix::PackedMatrix;
pub(crate) use norm::rms_norm;
pub(crate) use pool_view::{KvPool, SequenceLayer};
pub(crate) use swiglu::swiglu;
pub(crate) use threads::Threads;
pub use threads::physical_cores;
