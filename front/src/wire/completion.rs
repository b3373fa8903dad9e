//! The shape of `/v1/completions`: a stream's chunks and the whole answer look alike.

use serde::Serialize;
use serde_json::Value;

use super::{
    super::logprobs::{self, LegacyLogprobs},
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
struct TextChoice<'a> {
    index: usize,
    text: &'a str,
    logprobs: Option<LegacyLogprobs>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_reason: Option<Value>,
}

pub(super) fn chunk(writer: &mut Writer, index: u32, piece: &Piece, usage: ChunkUsage) -> String {
    let index = usize::try_from(index).unwrap_or(usize::MAX);
    let has_logprobs = writer.has_logprobs && !piece.tokens.is_empty();
    let choice = TextChoice {
        index,
        text: &piece.text,
        logprobs: has_logprobs
            .then(|| logprobs::legacy(&writer.tokenizer, &piece.tokens, &mut writer.offsets[index])),
        finish_reason: piece.end.as_ref().map(End::reason),
        stop_reason: stop_reason(piece.end.as_ref()),
    };
    to_json(&envelope(writer, [choice], usage))
}

pub(super) fn usage_chunk(writer: &Writer, usage: Usage) -> String {
    let none: [TextChoice<'_>; 0] = [];
    to_json(&envelope(writer, none, Some(Some(usage))))
}

pub(super) fn answer(writer: &Writer, choices: &[Choice], usage: Usage) -> String {
    let choices: Vec<_> = choices
        .iter()
        .enumerate()
        .map(|(index, choice)| TextChoice {
            index,
            text: &choice.text,
            logprobs: writer
                .has_logprobs
                .then(|| logprobs::legacy(&writer.tokenizer, &choice.tokens, &mut 0)),
            finish_reason: choice.end.as_ref().map(End::reason),
            stop_reason: stop_reason(choice.end.as_ref()),
        })
        .collect();
    to_json(&envelope(writer, choices, Some(Some(usage))))
}

fn envelope<'a, C>(writer: &'a Writer, choices: C, usage: ChunkUsage) -> Envelope<'a, C> {
    Envelope {
        id: &writer.id,
        object: "text_completion",
        created: writer.created,
        model: &writer.model,
        choices,
        usage,
    }
}
