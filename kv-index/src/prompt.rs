//! A request's prompt, as the index sees it.

use crate::key;

/// What a prompt is computed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scope<'a> {
    /// Model, by the name under which its workers were added.
    pub model: &'a str,
    /// LoRA adapter, by name.
    pub adapter: Option<&'a str>,
    /// Text that separates a tenant's prefixes from others' (vLLM's `cache_salt`).
    pub salt: Option<&'a str>,
}

/// The keys of a prompt's whole blocks, for one block size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PromptKeys {
    block_tokens: u32,
    keys: Vec<u64>,
}

impl PromptKeys {
    /// Hashes `tokens`. Tokens after the last whole block do not count, as workers cache whole blocks only.
    ///
    /// # Panics
    /// With blocks of no tokens.
    pub fn new(scope: &Scope<'_>, block_tokens: u32, tokens: &[u32]) -> Self {
        let mut keys = Self::default();
        keys.compute(scope, block_tokens, tokens);
        keys
    }

    /// The same into memory that is there.
    ///
    /// # Panics
    /// With blocks of no tokens.
    pub fn compute(&mut self, scope: &Scope<'_>, block_tokens: u32, tokens: &[u32]) {
        assert!(block_tokens > 0, "a block has tokens");
        let mut extra = scope.salt.map_or(0, |salt| key::push_extra(0, salt.as_bytes()));
        let mut previous = key::seed(scope.model, scope.adapter, block_tokens);
        self.block_tokens = block_tokens;
        self.keys.clear();
        self.keys.extend(tokens.chunks_exact(block_tokens as usize).map(|block| {
            previous = key::next(previous, key::with_extra(key::content(block), std::mem::take(&mut extra)));
            previous
        }));
    }

    /// Tokens of a block.
    pub fn block_tokens(&self) -> u32 {
        self.block_tokens
    }

    /// One a block; what they are means nothing.
    pub fn keys(&self) -> &[u64] {
        &self.keys
    }
}
