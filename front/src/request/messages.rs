//! Messages, brought into the form that chat templates expect.

use serde_json::{Map, Value, json};

use super::super::{
    api_error::ApiError,
    fields::{InvalidField, describe},
};

/// Checks each message, whose `content` is a string or a list of text parts then; other fields stay as they are, for the template.
pub(super) fn normalise(messages: Vec<Value>) -> Result<Vec<Value>, ApiError> {
    if messages.is_empty() {
        return Err(InvalidField::new("messages", "expected at least one message, got none").into());
    }
    messages.into_iter().enumerate().map(|(at, message)| Ok(normalise_one(at, message)?)).collect()
}

fn normalise_one(at: usize, message: Value) -> Result<Value, InvalidField> {
    let Value::Object(mut message) = message else {
        return Err(InvalidField::expected(format!("messages[{at}]"), "an object", &message));
    };
    let role = match message.get("role") {
        Some(Value::String(role)) if !role.is_empty() => role.clone(),
        other => {
            let found = other.unwrap_or(&Value::Null);
            return Err(InvalidField::expected(
                format!("messages[{at}].role"),
                "a role such as \"user\"",
                found,
            ));
        }
    };
    let param = format!("messages[{at}].content");
    let may_be_absent = role == "assistant"
        && ["tool_calls", "reasoning", "reasoning_content"].iter().any(|field| message.contains_key(*field));
    let content = match message.remove("content") {
        Some(text @ Value::String(_)) => text,
        Some(Value::Array(parts)) => text_parts(&param, parts)?,
        None | Some(Value::Null) if may_be_absent => Value::from(""),
        None | Some(Value::Null) => {
            return Err(InvalidField::new(param, "expected a string or an array of text parts, got nothing"));
        }
        Some(other) => {
            return Err(InvalidField::expected(param, "a string or an array of text parts", &other));
        }
    };
    message.insert("content".to_owned(), content);
    parse_tool_arguments(at, &mut message)?;
    name_reasoning(&mut message);
    Ok(Value::Object(message))
}

/// The template is given them as they are, if it takes lists.
fn text_parts(param: &str, parts: Vec<Value>) -> Result<Value, InvalidField> {
    let part = |(at, part)| {
        let text = text_of(&format!("{param}[{at}]"), part)?;
        Ok(json!({"type": "text", "text": text}))
    };
    parts.into_iter().enumerate().map(part).collect::<Result<Vec<_>, _>>().map(Value::from)
}

fn text_of(param: &str, part: Value) -> Result<String, InvalidField> {
    let Value::Object(mut part) = part else {
        return Err(InvalidField::expected(param, "an object {\"type\": \"text\", \"text\": …}", &part));
    };
    match part.get("type").and_then(Value::as_str) {
        Some("text") => {}
        Some(kind) => {
            let problem = format!("parts of type {kind:?} are not supported: this server takes text only");
            return Err(InvalidField::new(format!("{param}.type"), problem));
        }
        None => return Err(InvalidField::new(format!("{param}.type"), "expected \"text\", got nothing")),
    }
    match part.remove("text") {
        Some(Value::String(text)) => Ok(text),
        other => {
            Err(InvalidField::expected(format!("{param}.text"), "a string", &other.unwrap_or(Value::Null)))
        }
    }
}

/// Reasoning of earlier turns is `reasoning_content` to Qwen3's template and `thinking` to gpt-oss's; clients call it by either name
/// that answers have.
fn name_reasoning(message: &mut Map<String, Value>) {
    let given = ["reasoning_content", "reasoning"].iter().find_map(|name| message.get(*name)?.as_str());
    if let Some(given) = given.map(str::to_owned) {
        for name in ["reasoning_content", "thinking"] {
            message.entry(name).or_insert_with(|| Value::String(given.clone()));
        }
    }
}

/// OpenAI's clients send a call's arguments as JSON in a string; templates want the object.
fn parse_tool_arguments(at: usize, message: &mut Map<String, Value>) -> Result<(), InvalidField> {
    let calls = match message.get_mut("tool_calls") {
        None | Some(Value::Null) => {
            message.remove("tool_calls");
            return Ok(());
        }
        Some(Value::Array(calls)) => calls,
        Some(other) => {
            return Err(InvalidField::expected(format!("messages[{at}].tool_calls"), "an array", other));
        }
    };
    for (call_at, call) in calls.iter_mut().enumerate() {
        let param = format!("messages[{at}].tool_calls[{call_at}].function.arguments");
        let Some(arguments) = call.pointer_mut("/function/arguments") else { continue };
        if let Value::String(text) = arguments {
            let parsed = if text.trim().is_empty() {
                Ok(Value::Object(Map::new()))
            } else {
                serde_json::from_str(text)
            };
            *arguments = parsed.map_err(|error| {
                InvalidField::new(
                    param,
                    format!("expected JSON, got {}: {error}", describe(&Value::String(text.clone()))),
                )
            })?;
        }
    }
    Ok(())
}
