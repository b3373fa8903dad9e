//! The tokens of a model folder by their bytes: grammars need them, and a draft model's are compared with them.

use std::{path::Path, sync::Arc};

use baton_tokenizer::{Tokenizer, VocabularyToken};

use crate::RunError;

/// All tokens of a folder, by id; or why there are none, which costs a worker no more than what needs them.
pub(crate) type Tokens = Result<Arc<[VocabularyToken]>, String>;

/// Reads a folder's tokenizer, of which only the tokens' bytes are kept. A large one takes a second, away from the runtime's threads.
pub(crate) async fn read(folder: &Path) -> Result<Tokens, RunError> {
    let folder = folder.to_owned();
    tokio::task::spawn_blocking(move || tokens_of(&folder)).await.map_err(|_| RunError::LoadPanicked)
}

fn tokens_of(folder: &Path) -> Tokens {
    let tokenizer = Tokenizer::load(folder).map_err(|error| error.to_string())?;
    let tokens = tokenizer.vocabulary();
    tokens
        .map(Arc::from)
        .ok_or_else(|| "the tokens of this kind of tokenizer have no bytes of their own".to_owned())
}
