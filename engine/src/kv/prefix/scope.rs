//! What else must be the same, beside the tokens, before two sequences may share blocks.

use twox_hash::XxHash3_64;

/// Sequences share cached blocks within one scope only. Most requests have none, which is a scope, too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CacheScope {
    /// The adapter that computes keys and values, beside the model itself.
    pub adapter: Option<Adapter>,
    /// Known to those only who may profit from each other's prompts: who shares a block can tell so by the time it takes.
    pub salt: Option<String>,
}

/// A low-rank adapter of the model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Adapter {
    /// Number on this worker.
    pub id: u64,
    /// Name that requests select it by.
    pub name: String,
}

impl CacheScope {
    /// Start of the hash chain of sequences in `scope`. The adapter's number is left out: other workers number differently.
    pub(super) fn seed(scope: Option<&Self>) -> u64 {
        let Some(Self { adapter, salt }) = scope else { return 0 };
        let name = adapter.as_ref().map(|adapter| adapter.name.as_str());
        [name, salt.as_deref()].into_iter().fold(1, |seed, part| match part {
            Some(text) => XxHash3_64::oneshot_with_seed(seed, text.as_bytes()),
            None => seed.wrapping_mul(3),
        })
    }
}
