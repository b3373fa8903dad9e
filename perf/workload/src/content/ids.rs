//! Prompts as token ids.

use std::sync::Arc;

use baton_tokenizer::Tokenizer;

use super::pattern::{Pattern, seed_of_round};
use crate::plan::{Fill, Plan, Prompt};

/// Fewer tokens to choose from would make prompts alike.
const MIN_VOCABULARY: u32 = 64;

/// Makes prompts of token ids, for `/v1/completions`. Lengths are exact.
#[derive(Clone, Debug)]
pub struct IdContent {
    seed: u64,
    ids: Vec<u32>,
    tokenizer: Option<Arc<Tokenizer>>,
}

/// A vocabulary in which prompts would be alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a vocabulary of {tokens} tokens is too small to make prompts of: at least {MIN_VOCABULARY}")]
pub struct VocabularyTooSmall {
    /// Its size.
    pub tokens: u32,
}

/// A text of the plan has no token ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the plan has texts out of a file, which are token ids only with a tokenizer: give one, or send texts"
)]
pub struct TextWithoutTokenizer;

impl IdContent {
    /// Without a tokenizer: ids of the middle 90 % of a vocabulary of `size` tokens, as control tokens are at its ends.
    ///
    /// # Errors
    /// A vocabulary that is too small.
    pub fn with_vocabulary(size: u32, seed: u64) -> Result<Self, VocabularyTooSmall> {
        Self::try_new(size, (size / 20..size - size / 20).collect(), None, seed)
    }

    /// Ids of all tokens but control tokens; texts out of files are encoded.
    ///
    /// # Errors
    /// A vocabulary that is too small.
    pub fn with_tokenizer(tokenizer: Arc<Tokenizer>, seed: u64) -> Result<Self, VocabularyTooSmall> {
        let size = tokenizer.vocab_size();
        let is_text = |&id: &u32| !tokenizer.is_special(id) && !tokenizer.token_bytes(id).is_empty();
        let ids = (0..size).filter(is_text).collect();
        Self::try_new(size, ids, Some(tokenizer), seed)
    }

    fn try_new(
        size: u32,
        ids: Vec<u32>,
        tokenizer: Option<Arc<Tokenizer>>,
        seed: u64,
    ) -> Result<Self, VocabularyTooSmall> {
        match ids.len() < MIN_VOCABULARY as usize {
            true => Err(VocabularyTooSmall { tokens: size }),
            false => Ok(Self { seed, ids, tokenizer }),
        }
    }

    /// The same of other tokens; round 0 is this one.
    #[must_use]
    pub fn in_round(&self, round: u64) -> Self {
        Self { seed: seed_of_round(self.seed, round), ..self.clone() }
    }

    /// Appends a made piece's tokens.
    pub fn piece(&self, id: u64, tokens: u32, to: &mut Vec<u32>) {
        let mut pattern = Pattern::new(self.seed, id, self.ids.len(), self.ids.len());
        to.extend((0..tokens).map(|_| self.ids[pattern.next()]));
    }

    /// A prompt's tokens. `answer` gives the tokens that came for an earlier request, by its index; `None` for one that is not known
    /// makes tokens as many as were asked for.
    ///
    /// # Errors
    /// A text out of a file, without a tokenizer.
    pub fn prompt<A: AsRef<[u32]>>(
        &self,
        plan: &Plan,
        prompt: &Prompt,
        answer: impl Fn(u32) -> Option<A>,
    ) -> Result<Vec<u32>, TextWithoutTokenizer> {
        let mut tokens = Vec::with_capacity(prompt.tokens() as usize);
        for piece in &prompt.pieces {
            match piece.fill {
                Fill::Made => self.piece(piece.id, piece.tokens, &mut tokens),
                Fill::Answer { index } => match answer(index) {
                    Some(answer) => tokens.extend_from_slice(answer.as_ref()),
                    None => self.piece(piece.id, piece.tokens, &mut tokens),
                },
                Fill::Text(id) => {
                    let tokenizer = self.tokenizer.as_ref().ok_or(TextWithoutTokenizer)?;
                    tokens.extend(tokenizer.encode(&plan.text(id).text, false).unwrap_or_default());
                }
            }
        }
        Ok(tokens)
    }
}
