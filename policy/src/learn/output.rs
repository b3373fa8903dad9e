//! How many tokens requests generate, by model and tenant: what they will occupy is reserved before it is known.

use std::collections::HashMap;

use super::quantile::Quantiles;

/// Keys of their own; whoever comes later is counted with all.
const MOST_KEYS: usize = 1_024;
/// A key's own mean counts like this many requests against that of all.
const SHRINK: f64 = 8.0;
/// Until anything was seen: the median of a published conversation trace (Mooncake, FAST '25).
const UNKNOWN_TOKENS: f64 = 350.0;

/// Output lengths by key, such as "model/tenant".
#[derive(Clone, Debug, Default)]
pub struct OutputLengths {
    all: Quantiles,
    by_key: HashMap<String, Quantiles>,
}

impl OutputLengths {
    /// A request of `key` generated `tokens`.
    pub fn add(&mut self, key: &str, tokens: u64) {
        self.all.add(tokens as f64);
        if let Some(own) = self.by_key.get_mut(key) {
            own.add(tokens as f64);
        } else if self.by_key.len() < MOST_KEYS {
            let mut own = Quantiles::default();
            own.add(tokens as f64);
            self.by_key.insert(key.to_owned(), own);
        }
    }

    /// Tokens that a request of `key` will generate, of `max_tokens` at most.
    #[must_use]
    pub fn expected(&self, key: &str, max_tokens: u64) -> f64 {
        let all = self.all.mean().unwrap_or(UNKNOWN_TOKENS);
        let expected = match self.by_key.get(key).map(|own| (own.count(), own.mean())) {
            Some((count, Some(own))) => (own * count + all * SHRINK) / (count + SHRINK),
            _ => all,
        };
        expected.min(max_tokens as f64).max(1.0)
    }

    /// Tokens that a share of `q` of the requests of `key` stay under.
    #[must_use]
    pub fn quantile(&self, key: &str, q: f64) -> f64 {
        let own = self.by_key.get(key).filter(|own| own.count() >= SHRINK).unwrap_or(&self.all);
        own.quantile(q).unwrap_or(UNKNOWN_TOKENS)
    }
}
