//! What outputs must be: the model's vocabulary, and grammars off the wire.

use baton_engine::SamplingParams;
use baton_grammar::{GrammarError, Grammars, TokenBytes, Vocabulary};
use baton_proto::v1::{self, Failure, FailureKind};
use baton_tokenizer::VocabularyToken;

use crate::{RunError, Worker, vocabulary::Tokens, wire::sampling_from_wire};

/// Prepares what grammars are compiled with. `None`, with the reason in the log, when the tokens' bytes are not known: then requests
/// with a grammar are refused, and all others served.
pub(crate) async fn prepare(
    tokens: Tokens,
    vocab_size: usize,
    eos: &[u32],
) -> Result<Option<Grammars>, RunError> {
    let eos = eos.to_vec();
    // A large vocabulary takes a fraction of a second: not on a thread of the runtime.
    let prepared = tokio::task::spawn_blocking(move || {
        let bytes =
            |token: &VocabularyToken| TokenBytes { bytes: token.bytes.clone(), is_special: token.is_special };
        let vocabulary = Vocabulary::new(tokens?.iter().map(bytes), vocab_size, &eos);
        let grammars = vocabulary.and_then(|vocabulary| Grammars::new(&vocabulary));
        grammars.map_err(|error| error.to_string())
    });
    let prepared = prepared.await.map_err(|_| RunError::LoadPanicked)?;
    Ok(prepared.inspect_err(|reason| tracing::info!(reason, "no structured output on this worker")).ok())
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
