//! What the front must know of a model to speak for it: its tokenizer, what it writes around its answers, its grammars.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use baton_grammar::{GrammarError, Grammars, TokenBytes, Vocabulary};
use baton_parsers::Formats;
use baton_tokenizer::{LoadError, Tokenizer, VocabularyToken};

use crate::FrontConfig;

/// A model's text side.
pub struct ModelText {
    /// Its folder.
    pub folder: PathBuf,
    /// Text to tokens and back.
    pub tokenizer: Arc<Tokenizer>,
    /// What the model writes around its answers.
    pub(crate) formats: Formats,
    /// The control tokens among the marks of those formats.
    pub(crate) marks: Arc<[u32]>,
    /// Checks what outputs must be; an error: this model's can't be constrained.
    pub(crate) grammars: Result<Grammars, GrammarError>,
}

impl ModelText {
    /// Reads what `folder` says of it.
    ///
    /// # Errors
    /// Its tokenizer can't be used.
    pub async fn load(folder: &Path, config: &FrontConfig) -> Result<Self, LoadError> {
        let (folder, config) = (folder.to_owned(), config.clone());
        let loaded = tokio::task::spawn_blocking(move || Self::read(folder, &config));
        loaded.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    fn read(folder: PathBuf, config: &FrontConfig) -> Result<Self, LoadError> {
        let tokenizer = Tokenizer::load(&folder)?;
        let formats = formats_of(config, &tokenizer);
        Ok(Self {
            folder,
            formats,
            marks: control_tokens(&tokenizer, formats),
            grammars: grammars_of(&tokenizer),
            tokenizer: Arc::new(tokenizer),
        })
    }
}

/// What the model writes around its answers: as its chat template shows, unless the operator says otherwise.
fn formats_of(config: &FrontConfig, tokenizer: &Tokenizer) -> Formats {
    let detected = baton_parsers::detect(&tokenizer.chat_templates());
    let formats = Formats {
        tools: config.tool_call_parser.or(detected.tools),
        reasoning: config.reasoning_parser.or(detected.reasoning),
    };
    tracing::info!(tool_calls = ?formats.tools, reasoning = ?formats.reasoning, "formats of the model's output");
    formats
}

fn control_tokens(tokenizer: &Tokenizer, formats: Formats) -> Arc<[u32]> {
    let marks = formats.marks().into_iter().filter_map(|mark| tokenizer.added_token(mark));
    marks.filter(|&id| tokenizer.is_special(id)).collect()
}

/// Of the same vocabulary that workers have.
fn grammars_of(tokenizer: &Tokenizer) -> Result<Grammars, GrammarError> {
    let tokens = tokenizer
        .vocabulary()
        .ok_or(GrammarError::Unsupported("its tokenizer's tokens have no bytes of their own"))?;
    let size = tokenizer.vocab_size().max(tokenizer.facts().vocab_size.unwrap_or(0));
    let bytes = |token: VocabularyToken| TokenBytes { bytes: token.bytes, is_special: token.is_special };
    let tokens = tokens.into_iter().map(bytes);
    let vocabulary =
        Vocabulary::new(tokens, usize::try_from(size).unwrap_or(usize::MAX), tokenizer.eos_ids())?;
    Grammars::new(&vocabulary)
}
