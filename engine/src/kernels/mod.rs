//! Kernels. Each file is one operation: its CPU form, its plainest form (`reference`, which the reference device is made of)
//! and its test, which runs on every device.
//!
//! Every kernel is batch-invariant: what it computes for a row depends on that row's inputs alone, in a fixed order of
//! operations for each [`Isa`], never on how many rows there are or on which thread runs it. Threads share work only
//! along independent outputs.
//!
//! The instruction set is looked at once, when [`Kernels::of`] puts the table of compiled kernels together.

mod arith;
pub(crate) mod attention;
#[cfg(target_arch = "x86_64")]
mod attention_avx512;
mod batch;
mod buffer;
mod element;
pub(crate) mod embed;
pub(crate) mod experts;
mod fused;
pub(crate) mod gate;
pub(crate) mod gemm;
#[cfg(target_arch = "x86_64")]
mod gemm_avx512;
pub(crate) mod heads;
#[cfg(target_arch = "x86_64")]
mod heads_avx512;
pub(crate) mod int8;
#[cfg(target_arch = "x86_64")]
mod int8_avx512;
mod isa;
pub(crate) mod low_rank;
mod matrix;
pub(crate) mod mxfp4;
#[cfg(target_arch = "x86_64")]
mod mxfp4_avx512;
pub(crate) mod norm;
mod operands;
mod peak;
#[cfg(target_arch = "x86_64")]
mod peak_avx512;
mod pool_view;
pub(crate) mod rope;
pub(crate) mod routing;
mod row_tiles;
mod rows;
mod table;
mod threads;

pub(crate) use attention::AttentionParams;
pub(crate) use batch::Batch;
pub(crate) use buffer::{Buffer, Scratches};
pub(crate) use element::{Element, LANES};
pub(crate) use experts::PackedExperts;
pub(crate) use gate::Gate;
pub(crate) use gemm::Output;
pub(crate) use heads::{HeadParams, HeadShape, Heads};
pub(crate) use int8::{Int8Matrix, Int8Rows};
pub use isa::Isa;
pub(crate) use low_rank::LowRankRows;
pub(crate) use matrix::{Packed, PackedMatrix};
pub(crate) use mxfp4::PackedMxfp4;
pub(crate) use operands::Operands;
pub(crate) use peak::{Peak, Unit};
pub(crate) use pool_view::{KvPool, SequenceLayer};
pub(crate) use routing::{Routes, Routing, Scoring};
pub(crate) use rows::Rows;
pub(crate) use table::Kernels;
pub(crate) use threads::Threads;
pub use threads::physical_cores;
