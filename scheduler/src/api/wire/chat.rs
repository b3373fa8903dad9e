//! The shape of `/v1/chat/completions`.

use serde::Serialize;
use serde_json::Value;

use super::{
    super::logprobs::{self, ChatLogprobs},
    Choice, ChunkUsage, Usage, Writer, stop_reason, to_json,
};
use crate::completion::{End, Piece};

#[derive(Serialize)]
struct Envelope<'a, C> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: C,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: ChunkUsage,
}

#[derive(Serialize)]
struct ChunkChoice<'a> {
    index: u32,
    delta: Delta<'a>,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_reason: Option<Value>,
}

#[derive(Default, Serialize)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
}

#[derive(Serialize)]
struct WholeChoice<'a> {
    index: usize,
    message: Message<'a>,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_reason: Option<Value>,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
    refusal: Option<&'static str>,
}

const ASSISTANT: &str = "assistant";

pub(super) fn opening(writer: &Writer, index: u32, usage: ChunkUsage) -> String {
    let delta = Delta { role: Some(ASSISTANT), content: Some("") };
    let choice = ChunkChoice { index, delta, logprobs: None, finish_reason: None, stop_reason: None };
    to_json(&envelope(writer, "chat.completion.chunk", [choice], usage))
}

pub(super) fn chunk(writer: &Writer, index: u32, piece: &Piece, usage: ChunkUsage) -> String {
    let has_content = !piece.text.is_empty() || !piece.tokens.is_empty();
    let choice = ChunkChoice {
        index,
        delta: Delta { role: None, content: has_content.then_some(piece.text.as_str()) },
        logprobs: (writer.has_logprobs && !piece.tokens.is_empty())
            .then(|| logprobs::chat(&writer.tokenizer, &piece.tokens)),
        finish_reason: piece.end.as_ref().map(End::reason),
        stop_reason: stop_reason(piece.end.as_ref()),
    };
    to_json(&envelope(writer, "chat.completion.chunk", [choice], usage))
}

pub(super) fn usage_chunk(writer: &Writer, usage: Usage) -> String {
    let none: [ChunkChoice<'_>; 0] = [];
    to_json(&envelope(writer, "chat.completion.chunk", none, Some(Some(usage))))
}

pub(super) fn answer(writer: &Writer, choices: &[Choice], usage: Usage) -> String {
    let choices: Vec<_> = choices
        .iter()
        .enumerate()
        .map(|(index, choice)| WholeChoice {
            index,
            message: Message { role: ASSISTANT, content: &choice.text, refusal: None },
            logprobs: writer.has_logprobs.then(|| logprobs::chat(&writer.tokenizer, &choice.tokens)),
            finish_reason: choice.end.as_ref().map(End::reason),
            stop_reason: stop_reason(choice.end.as_ref()),
        })
        .collect();
    to_json(&envelope(writer, "chat.completion", choices, Some(Some(usage))))
}

fn envelope<'a, C>(
    writer: &'a Writer,
    object: &'static str,
    choices: C,
    usage: ChunkUsage,
) -> Envelope<'a, C> {
    Envelope { id: &writer.id, object, created: writer.created, model: &writer.model, choices, usage }
}
