//! The model's tokens, as grammars see them: bytes.

use std::{fmt, sync::Arc};

use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};

use crate::GrammarError;

/// All tokens of a model by their bytes, in a tree that is searched for those that a grammar allows.
#[derive(Clone)]
pub struct Vocabulary {
    pub(crate) env: TokEnv,
}

/// One token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenBytes {
    /// What it stands for; none: it is never generated under a grammar.
    pub bytes: Vec<u8>,
    /// A control token, which is no text: a grammar has to name it.
    pub is_special: bool,
}

impl Vocabulary {
    /// Of a model whose logits have `size` entries, whose `eos` tokens end a text, and whose tokens are `tokens` by id; ids
    /// without a token are never generated.
    ///
    /// # Errors
    /// A model that has no token to end with could not say that the grammar is complete.
    pub fn new(
        tokens: impl IntoIterator<Item = TokenBytes>,
        size: usize,
        eos: &[u32],
    ) -> Result<Self, GrammarError> {
        let mut words: Vec<Vec<u8>> = tokens.into_iter().take(size).map(TokenBytes::into_word).collect();
        words.resize(size, Vec::new());
        let size =
            u32::try_from(size).map_err(|_| GrammarError::Unsupported("its vocabulary is too large"))?;
        let eos: Vec<u32> = eos.iter().copied().filter(|&id| id < size).collect();
        let Some(&first) = eos.first() else {
            return Err(GrammarError::Unsupported("it has no token that ends a text"));
        };
        let trie = TokTrie::from(&TokRxInfo::new(size, first), &words).with_eos_tokens(&eos);
        Ok(Self { env: Arc::new(ApproximateTokEnv::new(trie)) })
    }

    /// Entries of the model's logits.
    pub fn size(&self) -> usize {
        self.env.tok_trie().vocab_size()
    }
}

impl TokenBytes {
    fn into_word(self) -> Vec<u8> {
        if !self.is_special || self.bytes.is_empty() {
            return self.bytes;
        }
        // No UTF-8 begins with the marker, so no text matches.
        [&[TokTrie::SPECIAL_TOKEN_MARKER], self.bytes.as_slice()].concat()
    }
}

impl fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vocabulary").field("size", &self.size()).finish_non_exhaustive()
    }
}
