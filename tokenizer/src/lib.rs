//! Text in and out of tokens: tokenizer, chat template, incremental detokenisation, stop strings.
//!
//! The front is the only part of Baton that knows text. It renders a conversation with the model's own chat template
//! ([`Tokenizer::render_chat`]), encodes it once, and turns the token ids that come back into text as they arrive:
//!
//! ```text
//! token id ──► DetokenizeStream ──► text delta ──► StopMatcher ──► text that may be shown
//!              holds back bytes                    holds back what may
//!              of an unfinished character          be the start of a stop string
//! ```
//!
//! Everything here is pure and synchronous; encoding a long prompt is CPU work that the caller keeps off its async threads.
//!
//! Left out on purpose: training and saving tokenizers, padding and truncation (a `tokenizer.json` that asks for them is
//! not obeyed: a prompt is never cut silently), and templates sent by clients.
//!
//! # Invariants
//! - The deltas of a [`DetokenizeStream`], joined, are the text of all its tokens; each delta is whole characters.
//! - What a [`StopMatcher`] shows does not depend on how the text was cut into deltas.

#![forbid(unsafe_code)]

mod detokenize;
mod error;
mod folder;
mod stop;
mod template;
mod token_bytes;
mod tokenizer;
mod utf8;
mod vocabulary;

pub use detokenize::DetokenizeStream;
pub use error::{ChatTemplateMissing, FileMissing, FileUnreadable, LoadError, RenderError, TemplateInvalid};
pub use folder::{ModelFacts, served_name};
pub use stop::{StopMatch, StopMatcher};
pub use template::ChatInput;
pub use tokenizer::Tokenizer;
pub use vocabulary::VocabularyToken;
