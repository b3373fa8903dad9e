//! Who does what.

use std::fmt;

use serde::Serialize;

/// Workers of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Split {
    /// Prefill workers; 0: all do both.
    pub prefill: usize,
    /// Decode workers, or those that do both.
    pub decode: usize,
}

impl Split {
    /// All do both.
    #[must_use]
    pub fn aggregated(workers: usize) -> Self {
        Self { prefill: 0, decode: workers }
    }

    /// Every way to divide `workers`, the aggregated one first.
    pub fn all(workers: usize) -> impl Iterator<Item = Self> {
        (0..workers.max(1)).map(move |prefill| Self { prefill, decode: workers.max(1) - prefill })
    }

    /// Whether nobody works for another.
    #[must_use]
    pub fn is_aggregated(self) -> bool {
        self.prefill == 0
    }

    /// How many there are.
    #[must_use]
    pub fn workers(self) -> usize {
        self.prefill + self.decode
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = if self.is_aggregated() {
            format!("{} aggregated", self.decode)
        } else {
            format!("{}P:{}D", self.prefill, self.decode)
        };
        f.pad(&text)
    }
}
