//! Filter, score, pick: what a fleet's owner may choose by name in a YAML file. The default needs no file and no tuning.

mod file;
mod filter;
mod names;
mod pick;
mod warn;

pub use file::{ProfileError, parse};
pub use filter::Filter;
pub use pick::Picker;
pub use warn::{Influence, warnings};

use serde::Serialize;

use crate::estimate::{Terms, Weights};

/// How a scheduler decides.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Who is eligible at all.
    pub filters: Vec<Filter>,
    /// What each term of the cost counts, points already turned into milliseconds.
    pub weights: Weights,
    /// Which of the cheapest it is.
    pub picker: Picker,
    /// Who computes prompts.
    pub disaggregate: Disaggregate,
}

/// Whether a prompt is computed by a prefill worker, or where it decodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Disaggregate {
    /// Whatever costs less.
    #[default]
    Estimate,
    /// By a prefill worker, if there are at least so many tokens to compute.
    Threshold {
        /// Tokens of the prompt that the decode worker has not cached.
        uncached_tokens: u64,
    },
    /// By a prefill worker, if there is one.
    Always,
    /// Where it decodes.
    Never,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            filters: Filter::DEFAULT.to_vec(),
            weights: Terms::estimate_weights(),
            picker: Picker::default(),
            disaggregate: Disaggregate::default(),
        }
    }
}
