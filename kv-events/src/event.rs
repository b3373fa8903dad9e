//! What happens to a prefix cache, in vLLM's terms.

/// A change. Blocks are named by numbers that mean nothing but which block it is; the same on every worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Blocks that follow one another were added.
    Stored(Stored),
    /// Blocks are no longer there.
    Removed {
        /// One a block.
        hashes: Vec<u64>,
    },
    /// Nothing is there any more.
    Cleared,
}

/// Blocks that follow one another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// One a block.
    pub hashes: Vec<u64>,
    /// The block before the first one.
    pub parent: Option<u64>,
    /// Of all the blocks together, `block_tokens` for each.
    pub token_ids: Vec<u32>,
    /// Tokens of a block.
    pub block_tokens: usize,
    /// The adapter that computed them.
    pub lora: Option<Lora>,
    /// What else the first block of a sequence depends on.
    pub salt: Option<String>,
}

/// An adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lora {
    /// Number on the worker.
    pub id: u64,
    /// Name that requests select it by.
    pub name: String,
}
