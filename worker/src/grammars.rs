//! What outputs must be: the model's vocabulary, and grammars off the wire.

use std::path::Path;

use baton_engine::SamplingParams;
use baton_grammar::{GrammarError, Grammars, TokenBytes, Vocabulary};
use baton_proto::v1::{self, Failure, FailureKind};
use baton_tokenizer::Tokenizer;

use crate::{Worker, wire::sampling_from_wire};

/// Reads the folder's tokenizer, of which only the tokens' bytes are kept. `None`, with the reason in the log, when there is
/// none to read or its tokens have no bytes: then requests with a grammar are refused, and all others served.
pub(crate) fn load(folder: &Path, vocab_size: usize, eos: &[u32]) -> Option<Grammars> {
    let grammars = match Tokenizer::load(folder) {
        Err(error) => Err(error.to_string()),
        Ok(tokenizer) => match tokenizer.vocabulary() {
            None => Err("the tokens of this kind of tokenizer have no bytes of their own".to_owned()),
            Some(tokens) => {
                let bytes = |token: baton_tokenizer::VocabularyToken| TokenBytes {
                    bytes: token.bytes,
                    is_special: token.is_special,
                };
                let vocabulary = Vocabulary::new(tokens.into_iter().map(bytes), vocab_size, eos);
                vocabulary
                    .and_then(|vocabulary| Grammars::new(&vocabulary))
                    .map_err(|error| error.to_string())
            }
        },
    };
    grammars.inspect_err(|reason| tracing::info!(reason, "no structured output on this worker")).ok()
}

impl Worker {
    /// Sampling parameters off the wire, with their grammar compiled; the engine validates the rest.
    ///
    /// # Errors
    /// They are missing, or the grammar can't be used here.
    pub async fn sampling(&self, sampling: Option<v1::SamplingParams>) -> Result<SamplingParams, Failure> {
        let source = sampling.as_ref().map_or_else(String::new, |sampling| sampling.grammar.clone());
        let mut sampling = sampling_from_wire(sampling)?;
        if !source.is_empty() {
            let grammars = self.grammars.as_ref().ok_or_else(|| Failure {
                kind: FailureKind::Invalid.into(),
                message: "this worker's model folder has no tokenizer that grammars could be checked with"
                    .to_owned(),
            })?;
            let grammar = grammars.compile(&source).await.map_err(|error| refused(&error))?;
            sampling.grammar = Some(grammar);
        }
        Ok(sampling)
    }
}

fn refused(error: &GrammarError) -> Failure {
    let kind = if error.is_temporary() { FailureKind::Overloaded } else { FailureKind::Invalid };
    Failure { kind: kind.into(), message: format!("the grammar was refused: {error}") }
}
