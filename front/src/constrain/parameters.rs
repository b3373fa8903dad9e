//! Arguments between tags, as Qwen3-Coder writes them: text as it is, everything else as JSON.

use baton_grammar::source::{self, SchemaStyle};
use baton_parsers::{ArgumentKind, marks};
use serde_json::{Map, Value};

use super::super::{fields::InvalidField, request::Function};

/// A rule that the arguments need, once a grammar: text up to its closing tag.
const TEXT: &str = "parameter_text";

/// What of a text's schema can't be kept to: it is free up to its closing tag.
const NOT_ENFORCED: [&str; 4] = ["pattern", "format", "minLength", "maxLength"];

pub(super) fn rules() -> String {
    let close = marks::PARAMETER_CLOSE.replace('/', "\\/");
    format!("{TEXT}[lazy]: /(.|\\n)*\\n{close}\\n/\n")
}

/// An expression for all arguments of a function, in the schema's order.
pub(super) fn arguments(function: &Function) -> Result<String, InvalidField> {
    let schema = &function.parameters;
    let problem =
        |what: &str| InvalidField::new("tools", format!("parameters of {:?}: {what}", function.name));
    let properties = match schema.get("properties") {
        Some(Value::Object(properties)) => properties,
        None if !["$ref", "anyOf", "oneOf", "allOf"].iter().any(|key| schema.contains_key(*key)) => {
            return Ok(String::new());
        }
        _ => {
            return Err(problem(
                "expected an object of properties, because this model writes arguments one by one",
            ));
        }
    };
    let required = schema.get("required").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut parts = Vec::with_capacity(properties.len());
    for (name, property) in properties {
        if let Some(key) = NOT_ENFORCED.iter().find(|key| function.is_strict && property.get(**key).is_some())
        {
            return Err(problem(&format!(
                "properties.{name}.{key} can't be enforced in this model's format: leave it out, or strict"
            )));
        }
        let open = source::literal(&format!("{}{name}>\n", marks::PARAMETER_OPEN));
        let part = format!("{open} {}", value(property, schema, function.is_strict));
        let is_required = required.iter().any(|required| required == name);
        parts.push(if is_required { part } else { format!("({part})?") });
    }
    Ok(parts.join(" "))
}

/// A value and its closing tag.
fn value(property: &Value, schema: &Map<String, Value>, is_strict: bool) -> String {
    let close = source::literal(&format!("\n{}\n", marks::PARAMETER_CLOSE));
    let texts =
        property["enum"].as_array().map(|values| values.iter().filter_map(Value::as_str).collect::<Vec<_>>());
    match (ArgumentKind::of(property), texts) {
        (ArgumentKind::Text, Some(texts)) if !texts.is_empty() => {
            format!("({}) {close}", source::choice(&texts))
        }
        (ArgumentKind::Text, _) => TEXT.to_owned(),
        _ => {
            let mut property = property.as_object().cloned().unwrap_or_default();
            for definitions in ["$defs", "definitions"] {
                if let Some(shared) = schema.get(definitions) {
                    property.insert(definitions.to_owned(), shared.clone());
                }
            }
            let style = SchemaStyle {
                is_lenient: !is_strict,
                whitespace: Some(" ".to_owned()),
                ..SchemaStyle::default()
            };
            format!("{} {close}", source::json_schema(&property, &style))
        }
    }
}
