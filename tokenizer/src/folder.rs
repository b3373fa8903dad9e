//! What a Hugging Face model folder says about text: special tokens, chat templates, limits.

use std::{fs, io, path::Path};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::error::{FileMissing, FileUnreadable, LoadError};

/// Limits that `config.json` states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModelFacts {
    /// Longest context that the model was made for, in tokens.
    pub context_tokens: Option<u32>,
    /// Rows of the embedding table; token ids are below it. It may be larger than the tokenizer's vocabulary.
    pub vocab_size: Option<u32>,
}

/// `tokenizer_config.json`, as far as Baton reads it; everything else in it is how the tokenizer was trained.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct TokenizerConfig {
    pub(crate) chat_template: Option<ChatTemplates>,
    #[serde(flatten)]
    pub(crate) other: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum ChatTemplates {
    One(String),
    Several(Vec<NamedTemplate>),
}

#[derive(Debug, Deserialize)]
pub(crate) struct NamedTemplate {
    pub(crate) name: String,
    pub(crate) template: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ModelConfig {
    max_position_embeddings: Option<u32>,
    vocab_size: Option<u32>,
    eos_token_id: OneOrMany,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct GenerationConfig {
    eos_token_id: OneOrMany,
}

#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
    #[default]
    None,
}

impl From<OneOrMany> for Vec<u32> {
    fn from(ids: OneOrMany) -> Self {
        match ids {
            OneOrMany::One(id) => vec![id],
            OneOrMany::Many(ids) => ids,
            OneOrMany::None => Vec::new(),
        }
    }
}

/// The name that a model is served under when nobody says otherwise: the folder's own, or for a snapshot in the hub's
/// cache (`models--Qwen--Qwen3-0.6B/snapshots/<hash>`) the hub id.
pub fn served_name(dir: &Path) -> String {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let hub_id = dir.iter().rev().find_map(|part| part.to_str()?.strip_prefix("models--"));
    match hub_id {
        Some(id) => id.replacen("--", "/", 1),
        None => {
            dir.file_name().map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
        }
    }
}

/// Limits, and the token ids that end a text, from `config.json` and `generation_config.json`.
pub(crate) fn read_model(dir: &Path) -> Result<(ModelFacts, Vec<u32>), LoadError> {
    let config: ModelConfig = read_json(&dir.join("config.json"))?.unwrap_or_default();
    let generation: GenerationConfig = read_json(&dir.join("generation_config.json"))?.unwrap_or_default();
    let mut eos: Vec<u32> = generation.eos_token_id.into();
    eos.extend(Vec::from(config.eos_token_id));
    Ok((ModelFacts { context_tokens: config.max_position_embeddings, vocab_size: config.vocab_size }, eos))
}

/// `tokenizer_config.json`, with a `chat_template.jinja` beside it taking the place of its own template.
pub(crate) fn read_tokenizer_config(dir: &Path) -> Result<TokenizerConfig, LoadError> {
    let mut config: TokenizerConfig = read_json(&dir.join("tokenizer_config.json"))?.unwrap_or_default();
    if let Some(template) = read(&dir.join("chat_template.jinja"))? {
        let path = dir.join("chat_template.jinja");
        let template = String::from_utf8(template)
            .map_err(|error| FileUnreadable { path, reason: format!("it is not UTF-8: {error}") })?;
        config.chat_template = Some(ChatTemplates::One(template));
    }
    Ok(config)
}

/// The bytes of a file that the folder must have.
pub(crate) fn read_needed(path: &Path, needed: &'static str) -> Result<Vec<u8>, LoadError> {
    Ok(read(path)?.ok_or_else(|| FileMissing { path: path.to_owned(), needed })?)
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, LoadError> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    let parsed = serde_json::from_slice(&bytes);
    Ok(Some(parsed.map_err(|error| FileUnreadable { path: path.to_owned(), reason: error.to_string() })?))
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, FileUnreadable> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileUnreadable { path: path.to_owned(), reason: error.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_snapshot_is_served_under_its_hub_id() {
        let snapshot = Path::new("/nowhere/hub/models--Qwen--Qwen3-0.6B/snapshots/0f1e");
        assert_eq!(served_name(snapshot), "Qwen/Qwen3-0.6B");
        assert_eq!(served_name(Path::new("/nowhere/my-model")), "my-model");
    }

    #[test]
    fn end_of_sequence_ids_are_one_or_several() {
        let ids =
            |json: &str| Vec::from(serde_json::from_str::<GenerationConfig>(json).unwrap().eos_token_id);
        assert_eq!(ids(r#"{"eos_token_id": 7}"#), [7]);
        assert_eq!(ids(r#"{"eos_token_id": [7, 8]}"#), [7, 8]);
        assert_eq!(ids(r#"{"eos_token_id": null}"#), [0_u32; 0]);
        assert_eq!(ids("{}"), [0_u32; 0]);
    }
}
