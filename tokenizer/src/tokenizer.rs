//! The tokenizer of one model.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    time::SystemTime,
};

use crate::{
    ChatInput, ModelFacts, RenderError,
    error::{FileUnreadable, LoadError},
    folder,
    template::ChatRenderer,
    token_bytes::TokenBytes,
};

/// Text to token ids and back, and conversations to text, as the model was trained to see them.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    // Only for byte-level vocabularies.
    bytes: Option<TokenBytes>,
    special: HashSet<u32>,
    // Tokens that are never split, by their text.
    added: HashMap<String, u32>,
    eos: Vec<u32>,
    vocab_size: u32,
    renderer: ChatRenderer,
    facts: ModelFacts,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size)
            .field("eos", &self.eos)
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Reads `tokenizer.json`, and beside it, where present, `tokenizer_config.json`, `chat_template.jinja`,
    /// `config.json` and `generation_config.json`.
    ///
    /// # Errors
    /// [`LoadError`], naming the file.
    pub fn load(dir: &Path) -> Result<Self, LoadError> {
        let path = dir.join("tokenizer.json");
        let json = folder::read_needed(&path, "tokenizer.json, the tokenizer in Hugging Face's own format")?;
        let unreadable =
            |error: tokenizers::Error| FileUnreadable { path: path.clone(), reason: error.to_string() };
        let mut inner = tokenizers::Tokenizer::from_bytes(&json).map_err(unreadable)?;
        // A prompt is refused when too long, never cut or filled up silently.
        inner.with_truncation(None).map_err(unreadable)?;
        inner.with_padding(None);

        let config = folder::read_tokenizer_config(dir)?;
        let (facts, mut eos) = folder::read_model(dir)?;
        let renderer = ChatRenderer::new(config)?;
        eos.extend(renderer.eos_token().and_then(|token| inner.token_to_id(token)));
        eos.sort_unstable();
        eos.dedup();

        let vocab_size = vocab_size(&inner);
        let added = inner.get_added_tokens_decoder();
        let special = added.iter().filter(|(_, token)| token.special).map(|(&id, _)| id).collect();
        let added = added.into_iter().map(|(id, token)| (token.content, id)).collect();
        let bytes =
            is_byte_level(&inner).then(|| TokenBytes::new((0..vocab_size).map(|id| inner.id_to_token(id))));
        Ok(Self { inner, bytes, special, added, eos, vocab_size, renderer, facts })
    }

    /// The conversation as text, ready for [`encode`](Tokenizer::encode) without special tokens.
    ///
    /// # Errors
    /// No template, or the template refuses the conversation.
    pub fn render_chat(&self, input: &ChatInput<'_>, now: SystemTime) -> Result<String, RenderError> {
        self.renderer.render(input, now)
    }

    /// Token ids of `text`; `add_special` adds what the model expects around a text (often a first token).
    /// Time grows with the text: a long one does not belong on an async thread.
    ///
    /// # Errors
    /// The tokenizer's own message; byte-level vocabularies have none.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, String> {
        let encoding = self.inner.encode_fast(text, add_special).map_err(|error| error.to_string())?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of `ids`; ids outside the vocabulary have none.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        self.inner.decode(ids, skip_special).unwrap_or_default()
    }

    /// The token as the vocabulary spells it, e.g. `Ġa` for " a".
    pub fn spelling(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The bytes that `id` stands for: the whole token even when it is a part of a character.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        self.bytes_of(id).map_or_else(|| self.decode(&[id], false).into_bytes(), <[u8]>::to_vec)
    }

    /// Whether `id` is a control token, which has no text of its own.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.contains(&id)
    }

    /// Tokens that end a text.
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos
    }

    /// One more than the largest token id.
    pub fn vocab_size(&self) -> u32 {
        self.vocab_size
    }

    /// Limits that the model's `config.json` states.
    pub fn facts(&self) -> ModelFacts {
        self.facts
    }

    /// The texts of the model's chat templates, one after the other; they show what the model was trained to write.
    pub fn chat_templates(&self) -> String {
        self.renderer.sources()
    }

    /// Whether conversations can be rendered.
    pub fn has_chat_template(&self) -> bool {
        self.renderer.has_template()
    }

    /// How `tokenizer.json` describes the way from tokens to text.
    pub(crate) fn decoder(&self) -> Option<serde_json::Value> {
        serde_json::to_value(self.inner.get_decoder()?).ok()
    }

    /// Tokens that are never split, by their text.
    pub(crate) fn added(&self) -> &HashMap<String, u32> {
        &self.added
    }

    /// Bytes of `id` when the vocabulary is byte-level.
    pub(crate) fn bytes_of(&self, id: u32) -> Option<&[u8]> {
        self.bytes.as_ref().map(|bytes| bytes.get(id))
    }
}

fn vocab_size(inner: &tokenizers::Tokenizer) -> u32 {
    let largest = inner.get_vocab(true).into_values().max();
    largest.map_or(0, |id| id + 1)
}

fn is_byte_level(inner: &tokenizers::Tokenizer) -> bool {
    matches!(inner.get_decoder(), Some(tokenizers::DecoderWrapper::ByteLevel(_)))
}
