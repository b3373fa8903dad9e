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

/// A low-rank adapter (LoRA), told apart by what it computes rather than by when it was loaded: one that comes back under its name
/// with other weights is another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Adapter {
    /// For those who tell adapters apart by number, such as readers of KV events: a hash of name and revision, below 2³¹.
    pub id: u64,
    /// Name that requests select it by.
    pub name: String,
    /// Hash of its configuration and weights.
    pub revision: String,
}

impl Adapter {
    pub(crate) fn new(name: &str, revision: &str) -> Self {
        let hash = [name, revision]
            .iter()
            .fold(0, |seed, part| XxHash3_64::oneshot_with_seed(seed, part.as_bytes()));
        Self { id: (hash >> 33).max(1), name: name.to_owned(), revision: revision.to_owned() }
    }
}

impl CacheScope {
    /// Start of the hash chain of sequences in `scope`.
    pub(super) fn seed(scope: Option<&Self>) -> u64 {
        let Some(Self { adapter, salt }) = scope else { return 0 };
        let adapter = adapter.as_ref().map(|adapter| (&*adapter.name, &*adapter.revision)).unzip();
        [adapter.0, adapter.1, salt.as_deref()].into_iter().fold(1, |seed, part| match part {
            Some(text) => XxHash3_64::oneshot_with_seed(seed, text.as_bytes()),
            None => seed.wrapping_mul(3),
        })
    }
}
