//! From pieces to what is sent.

mod count;

pub use self::count::{CountTokens, Estimate};
