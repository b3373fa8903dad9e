//! How loaded a model server is, read from its Prometheus page. Pure.
//!
//! | module | what |
//! |---|---|
//! | `names` | which series of vLLM, SGLang and Baton mean what |
//! | `lines` | the text format, as far as these series need it |
//! | `page` | a page that comes in pieces, and the [`Load`] that it adds up to |

mod lines;
mod names;
mod page;

use std::collections::BTreeSet;

pub use names::narrow_query;
pub use page::{Page, PageError, Seen};

/// What a model server says of itself, over all its data-parallel ranks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Load {
    /// Requests that wait.
    pub waiting: u32,
    /// Requests being computed.
    pub running: u32,
    /// Share of its KV memory that requests use, 0 to 1; what is only cached counts as free.
    pub kv_usage: f64,
    /// Tokens in a KV block.
    pub block_tokens: Option<u32>,
    /// KV tokens that it holds when empty.
    pub kv_capacity_tokens: Option<u64>,
    /// Tokens of the longest sequence that it takes.
    pub most_model_tokens: Option<u32>,
    /// LoRA adapters; `None`: it says nothing of them.
    pub adapters: Option<Adapters>,
    /// Its prefix cache; `None`: it says nothing of it.
    pub prefix: Option<PrefixCounts>,
}

/// LoRA adapters that requests use. Those that are loaded but idle are not told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adapters {
    /// Of requests being computed.
    pub running: BTreeSet<String>,
    /// Of requests that wait.
    pub waiting: BTreeSet<String>,
    /// How many fit.
    pub most: u32,
}

/// Counted from the server's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefixCounts {
    /// Prompt tokens that were looked for.
    pub queried_tokens: u64,
    /// Those that were there.
    pub hit_tokens: u64,
}

impl Load {
    /// KV tokens that requests use.
    #[must_use]
    pub fn kv_used_tokens(&self) -> Option<u64> {
        self.kv_capacity_tokens.map(|capacity| (capacity as f64 * self.kv_usage).round() as u64)
    }

    /// KV blocks that it has.
    #[must_use]
    pub fn blocks(&self) -> Option<u64> {
        Some(self.kv_capacity_tokens? / u64::from(self.block_tokens?.max(1)))
    }
}
