//! Parameters that would change the answer and that are not implemented: refused, never silently ignored.

use serde_json::Value;

use super::super::{
    api_error::ApiError,
    fields::{Fields, InvalidField},
};

/// Fields that must be absent, null, false or empty.
const UNSUPPORTED: [&str; 21] = [
    "allowed_token_ids",
    "audio",
    "bad_words",
    "chat_template",
    "continue_final_message",
    "documents",
    "function_call",
    "functions",
    "guided_decoding_backend",
    "length_penalty",
    "logit_processors",
    "logits_processors",
    "mm_processor_kwargs",
    "prompt_embeds",
    "prompt_logprobs",
    "return_token_ids",
    "return_tokens_as_token_ids",
    "suffix",
    "thinking_token_budget",
    "truncate_prompt_tokens",
    "use_beam_search",
];

/// Refuses what both paths can't do.
pub(super) fn refuse_unsupported(fields: &mut Fields, n: u32) -> Result<(), ApiError> {
    for name in UNSUPPORTED {
        if fields.take(name).is_some_and(|value| is_set(&value)) {
            return Err(InvalidField::new(name, "not supported yet").into());
        }
    }
    refuse_best_of(fields, n)?;
    refuse_modalities(fields)
}

fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    }
}

/// The best of as many as are returned is all of them; anything else would need a ranking.
fn refuse_best_of(fields: &mut Fields, n: u32) -> Result<(), ApiError> {
    match fields.uint("best_of", 1..=u32::MAX)? {
        Some(best_of) if best_of != n => {
            Err(InvalidField::new("best_of", format!("not supported unless it equals n, which is {n}"))
                .into())
        }
        _ => Ok(()),
    }
}

fn refuse_modalities(fields: &mut Fields) -> Result<(), ApiError> {
    let modalities = fields.array("modalities")?.unwrap_or_default();
    match modalities.iter().find(|modality| modality.as_str() != Some("text")) {
        Some(other) => Err(InvalidField::expected("modalities", "only \"text\"", other).into()),
        None => Ok(()),
    }
}
