//! What can go wrong while loading a model folder's text side, and while rendering a conversation.

use std::path::PathBuf;

/// A file that the folder must have is not there.
#[derive(Debug, thiserror::Error)]
#[error("{path} is missing: the model folder must hold {needed}")]
pub struct FileMissing {
    /// Where it was looked for.
    pub path: PathBuf,
    /// What the folder needs.
    pub needed: &'static str,
}

/// A file is there, and can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{path} can't be used: {reason}")]
pub struct FileUnreadable {
    /// The file.
    pub path: PathBuf,
    /// Why, in the parser's or the system's words.
    pub reason: String,
}

/// The model's chat template is not a template that can be compiled.
#[derive(Debug, thiserror::Error)]
#[error("the chat template {name:?} can't be compiled: {source}")]
pub struct TemplateInvalid {
    /// The template's name: `default` unless the model has several.
    pub name: String,
    /// The compiler's message.
    #[source]
    pub source: minijinja::Error,
}

/// Why a model folder's text side can't be loaded.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant is the fact of the same name")]
pub enum LoadError {
    #[error(transparent)]
    FileMissing(#[from] FileMissing),
    #[error(transparent)]
    FileUnreadable(#[from] FileUnreadable),
    #[error(transparent)]
    TemplateInvalid(#[from] TemplateInvalid),
}

/// The model has no chat template.
#[derive(Debug, thiserror::Error)]
#[error(
    "this model has no chat template (neither `chat_template` in tokenizer_config.json nor a chat_template.jinja): \
     use /v1/completions, or add a template to the model folder"
)]
pub struct ChatTemplateMissing;

/// Why a conversation can't be rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// Nothing to render with.
    #[error(transparent)]
    Missing(#[from] ChatTemplateMissing),
    /// The template refused the conversation, by `raise_exception` or because something that it needs is not there.
    #[error("the model's chat template refused the conversation: {0}")]
    Refused(String),
}
