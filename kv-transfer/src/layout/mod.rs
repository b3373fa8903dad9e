//! How a worker's KV cache lies in memory, and whether another worker's can be turned into it.
//!
//! Two workers of the same model may cut the same numbers differently: other block sizes, heads before or after tokens, K and V
//! together or apart, heads spread over more or fewer tensor-parallel ranks. All of that can be converted on the way
//! ([`Conversion`]). What cannot (another model, dtype, head size) is a [`Mismatch`] that names the field.

mod conversion;
mod geometry;
mod types;

pub(crate) use conversion::{Conversion, Side};
pub use geometry::{GeometryError, KvGeometry};
pub use types::{KvDtype, KvLayout, KvOrder, KvPlacement, Mismatch, TensorParallel, UnknownDtype};
