//! What the output must be: OpenAI's `response_format`, vLLM's `structured_outputs` and its older `guided_…` fields.

use baton_grammar::{
    Input,
    source::{self, SchemaStyle},
};
use serde_json::{Map, Value};

use super::super::{
    api_error::ApiError,
    fields::{Fields, InvalidField},
};

/// What the output must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OutputFormat {
    /// The right-hand side of a grammar's rule.
    pub(crate) rule: String,
    /// What the client wrote, where it may be no grammar.
    pub(crate) input: Option<Input>,
    /// The field that asked for it.
    pub(crate) param: String,
}

impl OutputFormat {
    fn of(input: Input, param: String) -> Result<Self, InvalidField> {
        if let Err(refusal) = input.check() {
            return Err(InvalidField::within(&param, refusal));
        }
        let rule = match &input {
            Input::Schema(schema, style) => source::json_schema(schema, style),
            Input::Regex(pattern) => source::regex(pattern),
            Input::Lark(grammar) => source::nested(grammar),
        };
        Ok(Self { rule, input: Some(input), param })
    }
}

const RESPONSE_FORMAT: &str = "response_format";
const STRUCTURED: &str = "structured_outputs";
/// The kinds of `structured_outputs`; the older fields are these behind `guided_`.
const KINDS: [&str; 5] = ["json", "regex", "choice", "grammar", "json_object"];

/// Takes all fields that ask for a format; at most one may.
pub(super) fn take_format(fields: &mut Fields) -> Result<Option<OutputFormat>, ApiError> {
    let mut formats: Vec<OutputFormat> = take_response_format(fields)?.into_iter().collect();
    if let Some(options) = fields.object(STRUCTURED)? {
        formats.push(take_structured(Fields(options))?);
    }
    let style =
        SchemaStyle { whitespace: fields.string("guided_whitespace_pattern")?, ..SchemaStyle::default() };
    for kind in KINDS {
        let param = format!("guided_{kind}");
        if let Some(value) = fields.take(&param) {
            formats.extend(one(kind, value, &param, &style)?);
        }
    }
    if let [first, second, ..] = &formats[..] {
        let problem = format!("can't be combined with {}: ask for one format", first.param);
        return Err(InvalidField::new(second.param.clone(), problem).into());
    }
    Ok(formats.pop())
}

fn take_response_format(fields: &mut Fields) -> Result<Option<OutputFormat>, InvalidField> {
    let Some(format) = fields.object(RESPONSE_FORMAT)? else { return Ok(None) };
    let mut format = Fields(format);
    match format.take("type") {
        Some(Value::String(kind)) => match kind.as_str() {
            "text" => Ok(None),
            "json_object" => {
                let rule = source::json_object(&SchemaStyle::default());
                Ok(Some(OutputFormat { rule, input: None, param: RESPONSE_FORMAT.to_owned() }))
            }
            "json_schema" => take_json_schema(&mut format).map(Some),
            _ => {
                let problem =
                    format!("{kind:?} is not supported, only \"text\", \"json_object\" and \"json_schema\"");
                Err(InvalidField::new("response_format.type", problem))
            }
        },
        other => {
            let found = other.unwrap_or(Value::Null);
            Err(InvalidField::expected("response_format.type", "a string", &found))
        }
    }
}

/// `strict: false` is OpenAI's word for "as well as you can": keywords that can't be enforced are passed over then.
fn take_json_schema(format: &mut Fields) -> Result<OutputFormat, InvalidField> {
    const PARAM: &str = "response_format.json_schema";
    let Some(wrapper) = format.object("json_schema")? else {
        return Err(InvalidField::new(PARAM, "expected an object with a schema, got nothing"));
    };
    let mut wrapper = Fields(wrapper);
    let is_lenient = wrapper.boolean("strict")? == Some(false);
    let param = format!("{PARAM}.schema");
    let schema = object_of(wrapper.take("schema").unwrap_or(Value::Null), &param)?;
    let style = SchemaStyle { is_lenient, ..SchemaStyle::default() };
    OutputFormat::of(Input::Schema(schema, style), param)
}

fn take_structured(mut options: Fields) -> Result<OutputFormat, InvalidField> {
    let style = SchemaStyle {
        is_compact: options.boolean("disable_any_whitespace")?.unwrap_or(false),
        whitespace: options.string("whitespace_pattern")?,
        ..SchemaStyle::default()
    };
    let mut formats = Vec::new();
    for kind in KINDS {
        let param = format!("{STRUCTURED}.{kind}");
        if let Some(value) = options.take(kind) {
            formats.extend(one(kind, value, &param, &style)?);
        }
    }
    for name in ["structural_tag", "disable_additional_properties"] {
        if options.take(name).is_some_and(|value| value != Value::Bool(false)) {
            return Err(InvalidField::new(format!("{STRUCTURED}.{name}"), "not supported"));
        }
    }
    let count = formats.len();
    formats.pop().filter(|_| count == 1).ok_or_else(|| {
        InvalidField::new(STRUCTURED, format!("expected exactly one of {}, got {count}", KINDS.join(", ")))
    })
}

fn one(
    kind: &str,
    value: Value,
    param: &str,
    style: &SchemaStyle,
) -> Result<Option<OutputFormat>, InvalidField> {
    let input = match kind {
        "json" => Some(Input::Schema(schema_of(value.clone(), param)?, style.clone())),
        "regex" => Some(Input::Regex(string_of(value.clone(), param)?)),
        "grammar" => Some(Input::Lark(lark_of(value.clone(), param)?)),
        _ => None,
    };
    if let Some(input) = input {
        return OutputFormat::of(input, param.to_owned()).map(Some);
    }
    let rule = match kind {
        "choice" => source::choice(&choices_of(value, param)?),
        _ => match value {
            Value::Bool(true) => source::json_object(style),
            Value::Bool(false) => return Ok(None),
            other => return Err(InvalidField::expected(param, "true or false", &other)),
        },
    };
    Ok(Some(OutputFormat { rule, input: None, param: param.to_owned() }))
}

/// A schema, or one as JSON in a string.
fn schema_of(value: Value, param: &str) -> Result<Map<String, Value>, InvalidField> {
    match value {
        Value::String(text) => {
            let parsed = serde_json::from_str(&text)
                .map_err(|error| InvalidField::new(param, format!("expected a JSON schema: {error}")))?;
            object_of(parsed, param)
        }
        other => object_of(other, param),
    }
}

fn object_of(value: Value, param: &str) -> Result<Map<String, Value>, InvalidField> {
    match value {
        Value::Object(schema) => Ok(schema),
        other => Err(InvalidField::expected(param, "a JSON schema, which is an object", &other)),
    }
}

fn string_of(value: Value, param: &str) -> Result<String, InvalidField> {
    match value {
        Value::String(text) if !text.is_empty() => Ok(text),
        other => Err(InvalidField::expected(param, "a string that is not empty", &other)),
    }
}

fn lark_of(value: Value, param: &str) -> Result<String, InvalidField> {
    let grammar = string_of(value, param)?;
    if grammar.contains("::=") {
        return Err(InvalidField::new(
            param,
            "expected a grammar in Lark's notation (`rule: …`), got one in EBNF (`::=`)",
        ));
    }
    Ok(grammar)
}

fn choices_of(value: Value, param: &str) -> Result<Vec<String>, InvalidField> {
    let Value::Array(items) = value else {
        return Err(InvalidField::expected(param, "an array of strings", &value));
    };
    if items.is_empty() {
        return Err(InvalidField::new(param, "expected at least one string, got none"));
    }
    let strings = items.into_iter().enumerate();
    strings.map(|(at, item)| string_of(item, &format!("{param}[{at}]"))).collect()
}
