//! Why a grammar can't be used, or can't be followed further.

use std::time::Duration;

/// Why a grammar can't be used; the request that brought it is at fault unless [`is_temporary`](GrammarError::is_temporary).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// It is not a grammar, or one with a feature that is not supported.
    #[error("{0}")]
    Invalid(String),
    /// Its text is longer than any that is taken.
    #[error("it has {bytes} bytes, the limit is {limit}")]
    TooLong {
        /// What came.
        bytes: usize,
        /// What is taken.
        limit: usize,
    },
    /// It takes too long to prepare.
    #[error("it could not be prepared within {} s: make it simpler", limit.as_secs())]
    TooSlow {
        /// Most that is spent.
        limit: Duration,
    },
    /// Others are being prepared, for as long as this one could wait.
    #[error("too many other grammars are being prepared; try again soon")]
    Busy,
    /// The model or its tokenizer does not allow for grammars.
    #[error("this model can't follow a grammar: {0}")]
    Unsupported(&'static str),
}

impl GrammarError {
    /// Whether the same grammar may be taken later.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Busy)
    }
}

/// The output can't be continued: the grammar became too complex on the way, or a token came that it does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the grammar can't be followed further: {0}")]
pub struct GrammarBroken(pub(crate) String);
