//! What work takes, learned from what then happened: coefficients per worker and per class of links, output lengths, and how wrong predictions were.
//!
//! A worker that has done nothing yet is taken to be like the others; a fleet that has done nothing yet, to be like the published constants in
//! [`cost`](crate::cost).

mod fleet;
mod output;
mod quantile;

pub use fleet::Learner;
pub use output::OutputLengths;
pub use quantile::Quantiles;
