//! What a chat model writes, taken apart while it streams: reasoning, content, tool calls.
//!
//! ```text
//!   text, cut anywhere ──► OutputParser ──► Delta::Reasoning, Delta::Content, Delta::ToolCall, Delta::Arguments
//! ```
//!
//! One file a format: `hermes` (Hermes, Qwen), `qwen3_coder`, `llama3_json`, `mistral`, `harmony` (gpt-oss), and `think` for reasoning
//! between tags. Which one a model needs is read off its chat template ([`detect()`]). A format that is not here needs a file with its
//! parser, and a line in `format.rs` and `output.rs`.
//!
//! Everything is pure. What could still be a part of something else is held back; at the end it is shown as what it is then.
//!
//! # Invariants
//! - The deltas, joined, do not depend on how the text was cut.
//! - No text is lost: what looks like a call and is none is content. Only marks, and white space beside them, are left out.

#![forbid(unsafe_code)]

mod delta;
mod detect;
mod format;
mod function;
mod harmony;
mod hermes;
mod json;
mod llama3_json;
pub mod marks;
mod mistral;
mod output;
mod qwen3_coder;
mod text;
mod think;

pub use delta::Delta;
pub use detect::detect;
pub use format::{Formats, ReasoningFormat, ToolFormat, UnknownFormat};
pub use function::{ArgumentKind, Function};
pub use output::{OutputOptions, OutputParser};
pub use think::ThinkMark;
