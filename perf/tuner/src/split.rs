//! Who does what.

use std::{fmt, str::FromStr};

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

/// Text that is no split.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no split; give prefill and decode workers as 1:3, and 0:4 for four that do both")]
pub struct SplitInvalid(String);

impl FromStr for Split {
    type Err = SplitInvalid;

    fn from_str(text: &str) -> Result<Self, SplitInvalid> {
        let numbers = text.split_once(':').and_then(|(prefill, decode)| {
            Some(Self { prefill: prefill.parse().ok()?, decode: decode.parse().ok()? })
        });
        numbers
            .filter(|split| split.decode > 0 && split.workers() <= 64)
            .ok_or_else(|| SplitInvalid(text.to_owned()))
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
