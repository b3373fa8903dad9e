//! How much a key may do: requests and tokens a minute, and requests at a time.

mod bucket;
mod headers;
mod limiter;

pub(crate) use headers::{rate_headers, whole_seconds};
pub use limiter::Limited;
pub(crate) use limiter::{Limiter, Limits};
