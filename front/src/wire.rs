//! Answers as JSON, in the shape of the path.

mod chat;
mod completion;
mod message;
mod usage;

use std::sync::Arc;

use baton_proto::v1::Token;
use baton_tokenizer::Tokenizer;
use serde_json::Value;

pub(crate) use message::ToolCall;
pub(crate) use usage::Usage;

use crate::completion::{End, Piece};

/// OpenAI's two shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Chat,
    Completion,
}

/// Writes the answer to one request.
pub(crate) struct Writer {
    pub(crate) shape: Shape,
    /// `chatcmpl-…` or `cmpl-…`.
    pub(crate) id: String,
    /// Unix seconds.
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) has_logprobs: bool,
    pub(crate) tokenizer: Arc<Tokenizer>,
    // Characters of each completion's tokens so far; legacy logprobs count them.
    pub(crate) offsets: Vec<usize>,
    /// Tool calls of each completion so far.
    pub(crate) calls: Vec<usize>,
    /// Mistral's templates take ids of nine characters only.
    pub(crate) has_short_ids: bool,
}

/// A whole completion.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    /// All of it, or what is content of it.
    pub(crate) text: String,
    pub(crate) reasoning: Option<String>,
    pub(crate) calls: Vec<ToolCall>,
    pub(crate) tokens: Vec<Token>,
    pub(crate) end: Option<End>,
}

/// The `usage` field of a stream's chunk: absent, null, or there.
pub(crate) type ChunkUsage = Option<Option<Usage>>;

impl Writer {
    /// The chunk that opens a chat completion; other shapes have none.
    pub(crate) fn opening(&self, index: u32, usage: ChunkUsage) -> Option<String> {
        (self.shape == Shape::Chat).then(|| chat::opening(self, index, usage))
    }

    /// One chunk of a stream; `None` where there is nothing to say yet.
    pub(crate) fn chunk(&mut self, index: u32, piece: &Piece, usage: ChunkUsage) -> Option<String> {
        match self.shape {
            Shape::Chat => chat::chunk(self, index, piece, usage),
            Shape::Completion => Some(completion::chunk(self, index, piece, usage)),
        }
    }

    /// The chunk without choices that carries a stream's usage.
    pub(crate) fn usage_chunk(&self, usage: Usage) -> String {
        match self.shape {
            Shape::Chat => chat::usage_chunk(self, usage),
            Shape::Completion => completion::usage_chunk(self, usage),
        }
    }

    /// The whole answer.
    pub(crate) fn answer(&mut self, choices: &[Choice], usage: Usage) -> String {
        match self.shape {
            Shape::Chat => chat::answer(self, choices, usage),
            Shape::Completion => completion::answer(self, choices, usage),
        }
    }
}

/// vLLM's `stop_reason`: the client's stop string or stop token that ended the text.
fn stop_reason(end: Option<&End>) -> Option<Value> {
    match end? {
        End::StopString(stop) => Some(stop.as_str().into()),
        End::StopToken(id) => Some((*id).into()),
        End::Eos | End::ToolCalls | End::Length => None,
    }
}

fn to_json(value: &impl serde::Serialize) -> String {
    // Strings and numbers alone: there is nothing that could fail.
    serde_json::to_string(value).unwrap_or_default()
}
