//! Functions of a request, and what their arguments are, for formats whose calls carry text that has to be made JSON.

use serde_json::{Map, Value};

/// A function that may be called.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Function {
    /// What it is called by.
    pub name: String,
    /// A JSON schema of its arguments.
    pub parameters: Map<String, Value>,
}

/// What an argument is, by its schema, as far as its text has to be read by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArgumentKind {
    /// Its text as it stands.
    Text,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// True or false.
    Boolean,
    /// Anything that is written as JSON; what is none is text.
    Json,
}

impl Function {
    /// What that argument is; one that the schema does not name is text.
    pub fn kind_of(&self, argument: &str) -> ArgumentKind {
        let schema = self.parameters.get("properties").and_then(|properties| properties.get(argument));
        schema.map_or(ArgumentKind::Text, ArgumentKind::of)
    }
}

impl ArgumentKind {
    /// Of what a schema allows.
    pub fn of(schema: &Value) -> Self {
        match &schema["type"] {
            Value::String(name) => Self::named(name),
            Value::Array(names) => {
                Self::only(names.iter().filter_map(Value::as_str).map(Self::named_or_null))
            }
            _ => Self::of_other(schema),
        }
    }

    fn of_other(schema: &Value) -> Self {
        if let Some(options) = ["anyOf", "oneOf"].iter().find_map(|key| schema[key].as_array()) {
            let is_null = |option: &Value| option["type"] == "null";
            return Self::only(options.iter().map(|option| (!is_null(option)).then(|| Self::of(option))));
        }
        let is_json = ["$ref", "allOf", "properties", "items"].iter().any(|key| schema.get(key).is_some());
        let values =
            schema["enum"].as_array().map(Vec::as_slice).or(schema.get("const").map(std::slice::from_ref));
        match values {
            Some(values) if !values.iter().all(Value::is_string) => Self::Json,
            None if is_json => Self::Json,
            _ => Self::Text,
        }
    }

    /// The one that all are, but for null.
    fn only(kinds: impl Iterator<Item = Option<Self>>) -> Self {
        let mut kinds = kinds.flatten();
        match kinds.next() {
            Some(first) if kinds.all(|kind| kind == first) => first,
            _ => Self::Json,
        }
    }

    fn named_or_null(name: &str) -> Option<Self> {
        (name != "null").then(|| Self::named(name))
    }

    fn named(name: &str) -> Self {
        match name {
            "string" => Self::Text,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => Self::Json,
        }
    }

    /// An argument's text as JSON.
    pub(crate) fn to_json(self, text: &str) -> String {
        let word = text.trim();
        let is = |expected: &str| word.eq_ignore_ascii_case(expected);
        if is("null") || (self != Self::Text && is("none")) {
            return "null".to_owned();
        }
        let read = match self {
            Self::Text => None,
            Self::Integer => word.parse::<i128>().ok().map(|number| number.to_string()),
            Self::Number => number(word),
            // As vLLM and SGLang have it: what is not true is false.
            Self::Boolean => Some(is("true").to_string()),
            Self::Json if is("true") || is("false") => Some(word.to_ascii_lowercase()),
            Self::Json => serde_json::from_str::<Value>(word).is_ok().then(|| word.to_owned()),
        };
        read.unwrap_or_else(|| Value::from(text).to_string())
    }
}

/// A whole number is one without a point, as vLLM has it.
fn number(word: &str) -> Option<String> {
    if let Ok(whole) = word.parse::<i128>() {
        return Some(whole.to_string());
    }
    let float = word.parse::<f64>().ok().filter(|float| float.is_finite())?;
    Some(if float.fract() == 0.0 && float.abs() < 1e15 { format!("{float:.0}") } else { float.to_string() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_argument_is_what_its_schema_says() {
        let check = |schema: Value, expected| assert_eq!(ArgumentKind::of(&schema), expected, "{schema}");
        check(json!({"type": "string"}), ArgumentKind::Text);
        check(json!({"type": ["integer", "null"]}), ArgumentKind::Integer);
        check(json!({"type": ["integer", "string"]}), ArgumentKind::Json);
        check(json!({"anyOf": [{"type": "null"}, {"type": "boolean"}]}), ArgumentKind::Boolean);
        check(json!({"anyOf": [{"type": "number"}, {"type": "string"}]}), ArgumentKind::Json);
        check(json!({"enum": ["a", "b"]}), ArgumentKind::Text);
        check(json!({"enum": ["a", 1]}), ArgumentKind::Json);
        check(json!({"$ref": "#/$defs/x"}), ArgumentKind::Json);
        check(json!({"description": "whatever"}), ArgumentKind::Text);
    }

    #[test]
    fn text_becomes_json_of_its_kind_or_stays_text() {
        let check = |kind: ArgumentKind, text: &str, expected: &str| {
            assert_eq!(kind.to_json(text), expected, "{text}")
        };
        check(ArgumentKind::Text, " 5 \"x\"\n", "\" 5 \\\"x\\\"\\n\"");
        check(ArgumentKind::Text, "None", "\"None\"");
        check(ArgumentKind::Integer, " 42 ", "42");
        check(ArgumentKind::Integer, "4.5", "\"4.5\"");
        check(ArgumentKind::Number, "5.0", "5");
        check(ArgumentKind::Number, "-1.5e-3", "-0.0015");
        check(ArgumentKind::Number, "NaN", "\"NaN\"");
        check(ArgumentKind::Boolean, "True", "true");
        check(ArgumentKind::Boolean, "no", "false");
        check(ArgumentKind::Json, "[1, {\"a\": 2}]", "[1, {\"a\": 2}]");
        check(ArgumentKind::Json, "[1,", "\"[1,\"");
        check(ArgumentKind::Json, "None", "null");
        check(ArgumentKind::Integer, "null", "null");
    }
}
