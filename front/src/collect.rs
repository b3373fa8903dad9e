//! The answer in one piece.

use std::time::Instant;

use axum::{
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use futures::StreamExt as _;

use crate::{
    record::{RequestRecord, Unanswered},
    run::Events,
    wire::{Choice, Usage, Writer},
};

/// Waits for all completions. `choices` may begin with the echoed prompts.
///
/// # Errors
/// One failed. Nothing has been shown of any of them.
pub(crate) async fn respond(
    mut events: Events,
    mut choices: Vec<Choice>,
    mut writer: Writer,
    mut record: RequestRecord,
) -> Result<Response, Unanswered> {
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => return Err(Unanswered::new(error, record)),
        };
        record.observe(&event, Instant::now());
        let choice = &mut choices[usize::try_from(event.index).unwrap_or(usize::MAX)];
        match event.piece.deltas {
            None => choice.text.push_str(&event.piece.text),
            Some(deltas) => writer.add(event.index, deltas, choice),
        }
        if writer.has_logprobs {
            choice.tokens.extend(event.piece.tokens);
        }
        choice.end = event.piece.end.or(choice.end.take());
    }
    let usage = Usage::new(record.prompt_tokens, record.completion_tokens, record.cached_tokens());
    let answer = writer.answer(&choices, usage);
    record.response_bytes = answer.len() as u64;
    record.succeed();
    Ok(([(CONTENT_TYPE, "application/json")], answer).into_response())
}
