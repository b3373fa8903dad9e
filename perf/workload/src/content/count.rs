//! How many tokens a text is.

use baton_tokenizer::Tokenizer;

/// Counts the tokens of texts that come from files.
pub trait CountTokens {
    /// Tokens of `text`; 0 only for an empty one.
    fn count(&self, text: &str) -> u32;
}

/// Exact, without the tokens that a server adds at the ends.
impl CountTokens for Tokenizer {
    fn count(&self, text: &str) -> u32 {
        // A text that a tokenizer refuses is sent all the same: the server will say what it thinks of it.
        let tokens = self.encode(text, false).map_or(0, |ids| ids.len());
        u32::try_from(tokens).unwrap_or(u32::MAX)
    }
}

/// Counts without a tokenizer: so many bytes of text are a token, on average.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// 4 for English text and the vocabularies of current models.
    pub bytes_per_token: f64,
}

impl Default for Estimate {
    fn default() -> Self {
        Self { bytes_per_token: 4.0 }
    }
}

impl CountTokens for Estimate {
    fn count(&self, text: &str) -> u32 {
        (text.len() as f64 / self.bytes_per_token).ceil() as u32
    }
}
