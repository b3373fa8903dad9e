//! From what is asked for to who proposes: a draft model is loaded, compared with the model, and given a KV pool.

use std::path::Path;

use baton_engine::{DraftModel, Forward as _, KvMemory, Model, NgramLookup, Speculation};
use baton_tokenizer::VocabularyToken;

use super::{SpeculativeConfig, config::Method};
use crate::{
    ByteSize, RunError, WorkerArgs,
    assemble::load,
    vocabulary::{self, Tokens},
};

/// Tokens of prompts that the draft model computes before a step: a small part of what a step takes.
const CHUNK_TOKENS: usize = 128;

/// What is drafted for.
pub(crate) struct Target<'a> {
    pub(crate) model: &'a Model,
    pub(crate) tokens: Tokens,
    /// Of its KV cache.
    pub(crate) blocks: usize,
    pub(crate) threads: usize,
}

/// The draft model's tokens are not those of the model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DraftRefused {
    /// Another number of them.
    #[error("it has {draft} tokens and the model {model}: a draft model must have the model's vocabulary")]
    Size {
        /// The draft model's.
        draft: usize,
        /// The model's.
        model: usize,
    },
    /// Others.
    #[error(
        "its token {id} is {draft:?} and the model's {model:?}: a draft model must have the model's vocabulary"
    )]
    Token {
        /// The first that differs.
        id: usize,
        /// The draft model's.
        draft: String,
        /// The model's.
        model: String,
    },
}

/// Makes what `config` asks for.
pub(crate) async fn speculation(
    args: &WorkerArgs,
    config: &SpeculativeConfig,
    target: Target<'_>,
) -> Result<Speculation, RunError> {
    let proposer: Box<dyn baton_engine::Propose> = match &config.method {
        Method::Ngram { least, most } => Box::new(NgramLookup::new(*least, *most)),
        Method::DraftModel(folder) => Box::new(draft_model(args, folder, target).await?),
    };
    let SpeculativeConfig { draft_tokens, is_adaptive, .. } = *config;
    tracing::info!(method = ?config.method, draft_tokens, is_adaptive, "speculative decoding");
    Ok(Speculation { proposer, draft_tokens, is_adaptive })
}

/// Loads it in the model's type and format, with a KV cache for as many tokens.
async fn draft_model(args: &WorkerArgs, folder: &Path, target: Target<'_>) -> Result<DraftModel, RunError> {
    let (draft, tokens) = tokio::join!(load(folder, args, target.threads), vocabulary::read(folder));
    let (draft, tokens) = (draft?, tokens?);
    let refused = |source| RunError::DraftModel { folder: folder.display().to_string(), source };
    let (ours, theirs) = (target.model.config().vocab, draft.config().vocab);
    if ours != theirs {
        return Err(refused(DraftRefused::Size { draft: theirs, model: ours }));
    }
    match (&tokens, &target.tokens) {
        (Ok(theirs), Ok(ours)) => same_tokens(theirs, ours).map_err(refused)?,
        _ => tracing::warn!("of the draft model's vocabulary only the size could be compared"),
    }
    let layout = draft.kv_layout(usize::from(args.block_tokens));
    tracing::info!(
        blocks = target.blocks,
        size = %ByteSize(layout.pool_bytes(target.blocks) as u64),
        "KV cache of the draft model, beside the model's"
    );
    let memory = KvMemory::allocate(&layout, target.blocks);
    let forward = draft.bind(memory, &layout, target.blocks, target.threads)?;
    debug_assert_eq!(forward.vocab_size(), ours);
    Ok(DraftModel::new(Box::new(forward), CHUNK_TOKENS))
}

/// Whether each id stands for the same; the first that does not. Ids that one of them has no token for may be anything.
fn same_tokens(draft: &[VocabularyToken], model: &[VocabularyToken]) -> Result<(), DraftRefused> {
    let differ = |(_, (draft, model)): &(usize, (&VocabularyToken, &VocabularyToken))| {
        !draft.bytes.is_empty() && !model.bytes.is_empty() && draft.bytes != model.bytes
    };
    let text = |token: &VocabularyToken| String::from_utf8_lossy(&token.bytes).into_owned();
    match draft.iter().zip(model).enumerate().find(differ) {
        None => Ok(()),
        Some((id, (draft, model))) => Err(DraftRefused::Token { id, draft: text(draft), model: text(model) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary(tokens: &[&str]) -> Vec<VocabularyToken> {
        let token = |text: &&str| VocabularyToken { bytes: text.as_bytes().to_vec(), is_special: false };
        tokens.iter().map(token).collect()
    }

    #[test]
    fn the_first_token_that_differs_is_named() {
        let model = vocabulary(&["a", "b", "", "d"]);
        assert_eq!(same_tokens(&vocabulary(&["a", "b", "c"]), &model), Ok(()));
        let refused = same_tokens(&vocabulary(&["a", "x", "y", "z"]), &model).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "its token 1 is \"x\" and the model's \"b\": a draft model must have the model's vocabulary"
        );
    }
}
