//! What prompts are made of.

use std::{path::PathBuf, sync::Arc};

use baton_tokenizer::{LoadError, Tokenizer};

use super::load::parse_positive;
use crate::content::{CountTokens, Estimate, IdContent, TextContent, VocabularyTooSmall};

/// What prompts are made of.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Content")]
pub struct ContentArgs {
    /// Folder with the model's tokenizer.json: prompts then have exactly the tokens that were asked for
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,

    /// Without a tokenizer: size of the model's vocabulary, to send token ids (to /v1/completions)
    #[arg(long, value_name = "TOKENS", conflicts_with = "tokenizer")]
    vocab_size: Option<u32>,

    /// Without a tokenizer: tokens that a common English word is taken for; lengths are then estimates
    #[arg(long, value_name = "FACTOR", value_parser = parse_positive, default_value_t = 1.0, conflicts_with = "tokenizer")]
    tokens_per_word: f64,
}

/// Makes prompts, and counts texts.
#[derive(Clone, Debug)]
pub struct Content {
    /// The model's tokenizer, where it was given.
    pub tokenizer: Option<Arc<Tokenizer>>,
    /// Makes texts.
    pub text: TextContent,
    /// Makes token ids; `None` without a tokenizer and without the vocabulary's size.
    pub ids: Option<IdContent>,
}

/// Content that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// The tokenizer's folder.
    #[error("cannot load the tokenizer")]
    Tokenizer(#[from] LoadError),
    /// Its size.
    #[error(transparent)]
    Vocabulary(#[from] VocabularyTooSmall),
}

impl ContentArgs {
    /// Reads the tokenizer, if there is one.
    ///
    /// # Errors
    /// It cannot be read, or the vocabulary is too small.
    pub fn content(&self, seed: u64) -> Result<Content, ContentError> {
        let Some(folder) = &self.tokenizer else {
            let ids = self.vocab_size.map(|size| IdContent::with_vocabulary(size, seed)).transpose()?;
            let text = TextContent::with_common_words(self.tokens_per_word, seed);
            return Ok(Content { tokenizer: None, text, ids });
        };
        let tokenizer = Arc::new(Tokenizer::load(folder)?);
        let text = TextContent::with_tokenizer(&tokenizer, seed);
        let ids = Some(IdContent::with_tokenizer(Arc::clone(&tokenizer), seed)?);
        Ok(Content { tokenizer: Some(tokenizer), text, ids })
    }
}

impl Content {
    /// The same of other words, but for texts out of files: what is sent in another round of the same plan, so that a server's prefix cache finds only what
    /// the plan says. Round 0 is this one.
    #[must_use]
    pub fn in_round(&self, round: u64) -> Self {
        Self {
            tokenizer: self.tokenizer.clone(),
            text: self.text.in_round(round),
            ids: self.ids.as_ref().map(|ids| ids.in_round(round)),
        }
    }
}

impl CountTokens for Content {
    fn count(&self, text: &str) -> u32 {
        match &self.tokenizer {
            Some(tokenizer) => tokenizer.count(text),
            None => Estimate::default().count(text),
        }
    }
}
