//! The shape of `/v1/chat/completions`.

use serde::Serialize;
use serde_json::Value;

use super::{
    super::logprobs::{self, ChatLogprobs},
    Choice, ChunkUsage, ToolCall, Usage, Writer,
    message::Addition,
    stop_reason, to_json,
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
    #[serde(flatten)]
    reasoning: Reasoning<'a>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    tool_calls: &'a [ToolCall],
}

/// Under both names that clients read: the one that became usual, and vLLM's newer one.
#[derive(Default, Serialize)]
struct Reasoning<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<&'a str>,
}

impl<'a> From<Option<&'a str>> for Reasoning<'a> {
    fn from(text: Option<&'a str>) -> Self {
        Self { reasoning_content: text, reasoning: text }
    }
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
    content: Option<&'a str>,
    refusal: Option<&'static str>,
    #[serde(flatten)]
    reasoning: Reasoning<'a>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    tool_calls: &'a [ToolCall],
}

const ASSISTANT: &str = "assistant";

pub(super) fn opening(writer: &Writer, index: u32, usage: ChunkUsage) -> String {
    let delta = Delta { role: Some(ASSISTANT), content: Some(""), ..Delta::default() };
    let choice = ChunkChoice { index, delta, logprobs: None, finish_reason: None, stop_reason: None };
    to_json(&envelope(writer, "chat.completion.chunk", [choice], usage))
}

pub(super) fn chunk(writer: &mut Writer, index: u32, piece: &Piece, usage: ChunkUsage) -> Option<String> {
    let addition = match &piece.deltas {
        Some(deltas) => writer.addition(index, deltas),
        None => {
            let has_content = !piece.text.is_empty() || !piece.tokens.is_empty();
            Addition { content: has_content.then(|| piece.text.clone()), ..Addition::default() }
        }
    };
    let has_logprobs = writer.has_logprobs && !piece.tokens.is_empty();
    let is_due = has_logprobs || piece.end.is_some() || matches!(usage, Some(Some(_)));
    if addition.is_empty() && !is_due {
        return None;
    }
    let delta = Delta {
        role: None,
        content: addition.content.as_deref(),
        reasoning: addition.reasoning.as_deref().into(),
        tool_calls: &addition.calls,
    };
    let choice = ChunkChoice {
        index,
        delta,
        logprobs: has_logprobs.then(|| logprobs::chat(&writer.tokenizer, &piece.tokens)),
        finish_reason: piece.end.as_ref().map(End::reason),
        stop_reason: stop_reason(piece.end.as_ref()),
    };
    Some(to_json(&envelope(writer, "chat.completion.chunk", [choice], usage)))
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
            message: message(choice),
            logprobs: writer.has_logprobs.then(|| logprobs::chat(&writer.tokenizer, &choice.tokens)),
            finish_reason: choice.end.as_ref().map(End::reason),
            stop_reason: stop_reason(choice.end.as_ref()),
        })
        .collect();
    to_json(&envelope(writer, "chat.completion", choices, Some(Some(usage))))
}

/// Content is null where there is something else instead.
fn message(choice: &Choice) -> Message<'_> {
    let is_other = choice.text.is_empty() && (!choice.calls.is_empty() || choice.reasoning.is_some());
    Message {
        role: ASSISTANT,
        content: (!is_other).then_some(&choice.text),
        refusal: None,
        reasoning: choice.reasoning.as_deref().into(),
        tool_calls: &choice.calls,
    }
}

fn envelope<'a, C>(
    writer: &'a Writer,
    object: &'static str,
    choices: C,
    usage: ChunkUsage,
) -> Envelope<'a, C> {
    Envelope { id: &writer.id, object, created: writer.created, model: &writer.model, choices, usage }
}
