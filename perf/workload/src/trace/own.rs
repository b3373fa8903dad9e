//! The project's own format: JSON, one object a line. All fields may be left out but for what a prompt needs.
//!
//! | field | what |
//! |---|---|
//! | `arrival_ms` | when the request comes, in ms from any common beginning; in all rows (but later turns) or in none |
//! | `input_tokens` | length of a prompt whose content is made up |
//! | `pieces` | instead of that: `[[id, tokens], …]`, where equal ids are equal parts that prompts may begin with |
//! | `prompt` | instead of that: a text |
//! | `messages` | instead of that: `[{"role": "user", "content": "…"}, …]`, with the roles `system`, `user` and `assistant` |
//! | `output_tokens` | tokens of the answer |
//! | `session` | rows with the same name are turns of one conversation, in their order; each has only what it adds to what was said before |
//! | `think_ms` | in a later turn: the time from the end of the answer before it |
//!
//! ```text
//! {"arrival_ms": 0, "input_tokens": 900, "output_tokens": 120}
//! {"arrival_ms": 12.5, "pieces": [[1, 800], [2, 100]], "output_tokens": 80, "session": "a"}
//! {"input_tokens": 40, "output_tokens": 80, "session": "a", "think_ms": 2000}
//! ```

use serde_json::Value;

use super::{
    Place, Row, RowOutput, RowPrompt, SessionName,
    error::FieldError,
    fields::{Fields, short, tokens},
};
use crate::plan::{Role, Text};

/// Fields of which each row has exactly one.
pub(super) const PROMPTS: [&str; 4] = ["input_tokens", "pieces", "prompt", "messages"];

pub(super) fn row(line: &str, place: Place) -> Result<Row, FieldError> {
    let mut fields = Fields::of_line(line)?;
    let row = Row {
        at: fields.milliseconds("arrival_ms")?,
        prompt: prompt(&mut fields)?,
        output: fields.tokens("output_tokens")?.map(RowOutput::Tokens),
        session: fields.text("session")?.map(SessionName::Given),
        think: fields.milliseconds("think_ms")?,
        place,
    };
    match fields.left() {
        Some(field) => Err(FieldError::new(field, "there is no such field")),
        None => Ok(row),
    }
}

fn prompt(fields: &mut Fields) -> Result<RowPrompt, FieldError> {
    let given: Vec<&str> = PROMPTS.into_iter().filter(|field| fields.has(field)).collect();
    let [field] = given[..] else {
        return Err(FieldError(format!("a row needs one of the fields {}", PROMPTS.join(", "))));
    };
    let empty = || FieldError::new(field, "it is empty");
    match field {
        "input_tokens" => fields.tokens(field)?.map(RowPrompt::Tokens).ok_or_else(empty),
        "prompt" => {
            let text = fields.text(field)?.filter(|text| !text.is_empty()).ok_or_else(empty)?;
            Ok(RowPrompt::Messages(vec![Text { role: Role::User, text }]))
        }
        _ => {
            let list = fields.list(field)?.filter(|list| !list.is_empty()).ok_or_else(empty)?;
            if field == "pieces" {
                Ok(RowPrompt::Pieces(list.iter().map(piece).collect::<Result<_, _>>()?))
            } else {
                Ok(RowPrompt::Messages(list.into_iter().map(message).collect::<Result<_, _>>()?))
            }
        }
    }
}

fn piece(value: &Value) -> Result<(u64, u32), FieldError> {
    let bad = || FieldError::new("pieces", format!("`{}` is not [id, tokens]", short(value)));
    let [id, length] = value.as_array().ok_or_else(bad)?.as_slice() else { return Err(bad()) };
    Ok((id.as_u64().ok_or_else(bad)?, tokens("pieces", length)?))
}

fn message(value: Value) -> Result<Text, FieldError> {
    let mut fields = Fields::of(value).map_err(|error| FieldError::new("messages", error.0))?;
    let within = |error: FieldError| FieldError::new("messages", error.0);
    let role = fields.text("role").map_err(within)?;
    let role = match role.as_deref() {
        Some("system") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        _ => return Err(FieldError::new("messages", "`role` is not system, user or assistant")),
    };
    let text = fields.text("content").map_err(within)?;
    let text = text.ok_or_else(|| FieldError::new("messages", "`content` is missing"))?;
    match fields.left() {
        Some(field) => Err(FieldError::new("messages", format!("there is no field `{field}` in a message"))),
        None => Ok(Text { role, text }),
    }
}
