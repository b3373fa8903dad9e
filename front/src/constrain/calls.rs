//! Tool calls in the model's own format, with arguments that fit their schemas.

use baton_grammar::source::{self, SchemaStyle};
use baton_parsers::{Formats, ToolFormat, marks};
use serde_json::{Map, Value, json};

use super::{
    super::{fields::InvalidField, request::Function},
    Marks, parameters,
};

/// Calls of one message at most, when several may be made.
const MOST_CALLS: usize = 32;

/// The rule `calls`, and those that it needs.
pub(super) fn rules(
    marks: &Marks<'_>,
    formats: Formats,
    functions: &[Function],
    is_parallel: bool,
) -> Result<String, InvalidField> {
    let Some(format) = formats.tools else {
        let problem =
            "how this model writes tool calls is not known: say which format it has with --tool-call-parser";
        return Err(InvalidField::new("tool_choice", problem));
    };
    // A call ends a message of harmony's.
    let more = if is_parallel && format != ToolFormat::Harmony { MOST_CALLS - 1 } else { 0 };
    let shape = Shape::of(marks, format);
    let mut grammar = shape.calls(more);
    let names: Vec<String> = (0..functions.len()).map(|at| format!("call_{at}")).collect();
    grammar += &format!("call: {}\n", names.join(" | "));
    for (name, function) in names.iter().zip(functions) {
        grammar += &format!("{name}: {}\n", shape.call(function)?);
    }
    if format == ToolFormat::Qwen3Coder {
        grammar += &parameters::rules();
    }
    Ok(grammar)
}

/// How a format puts calls together.
struct Shape {
    before_all: String,
    after_all: String,
    between: String,
    /// Around each function's arguments.
    before: Vec<Part>,
    after: String,
    /// They stand between tags, rather than in a JSON object.
    are_tagged: bool,
}

/// A piece of what stands before arguments.
enum Part {
    Rule(String),
    /// Text, of the function's name as JSON.
    Text(fn(&str) -> String),
}

impl Shape {
    fn of(marks: &Marks<'_>, format: ToolFormat) -> Self {
        let none = String::new;
        match format {
            ToolFormat::Hermes => Self {
                before_all: none(),
                after_all: none(),
                between: source::literal("\n"),
                before: vec![
                    Part::Rule(format!("{} \"\\n\"", marks.rule(marks::TOOL_CALL_OPEN))),
                    Part::Text(|name| format!("{{\"name\": {name}, \"arguments\": ")),
                ],
                after: format!("\"}}\\n\" {}", marks.rule(marks::TOOL_CALL_CLOSE)),
                are_tagged: false,
            },
            ToolFormat::Qwen3Coder => Self {
                before_all: none(),
                after_all: none(),
                between: source::literal("\n"),
                before: vec![
                    Part::Rule(marks.rule(marks::TOOL_CALL_OPEN)),
                    Part::Text(|name| format!("\n{}{}>\n", marks::FUNCTION_OPEN, name.trim_matches('"'))),
                ],
                after: format!(
                    "{} {}",
                    source::literal(&format!("{}\n", marks::FUNCTION_CLOSE)),
                    marks.rule(marks::TOOL_CALL_CLOSE)
                ),
                are_tagged: true,
            },
            ToolFormat::Llama3Json => Self {
                before_all: none(),
                after_all: none(),
                between: source::literal("; "),
                before: vec![Part::Text(|name| format!("{{\"name\": {name}, \"parameters\": "))],
                after: source::literal("}"),
                are_tagged: false,
            },
            ToolFormat::Mistral => Self::mistral(marks),
            ToolFormat::Harmony => Self {
                before_all: none(),
                after_all: none(),
                between: none(),
                before: vec![
                    Part::Rule(marks.rule(marks::CHANNEL)),
                    Part::Text(|name| format!("commentary to=functions.{} ", name.trim_matches('"'))),
                    Part::Rule(marks.rule(marks::CONSTRAIN)),
                    Part::Text(|_| "json".to_owned()),
                    Part::Rule(marks.rule(marks::MESSAGE)),
                ],
                after: none(),
                are_tagged: false,
            },
        }
    }

    /// Newer models, which have a token between name and arguments, write neither an array nor names in quotes.
    fn mistral(marks: &Marks<'_>) -> Self {
        let none = String::new;
        let calls = marks.rule(marks::TOOL_CALLS);
        if marks.control(marks::ARGS).is_some() {
            return Self {
                before_all: none(),
                after_all: none(),
                between: none(),
                before: vec![
                    Part::Rule(calls),
                    Part::Text(|name| name.trim_matches('"').to_owned()),
                    Part::Rule(marks.rule(marks::ARGS)),
                ],
                after: none(),
                are_tagged: false,
            };
        }
        Self {
            before_all: format!("{calls} \" \"? \"[\""),
            after_all: source::literal("]"),
            between: source::literal(", "),
            before: vec![Part::Text(|name| format!("{{\"name\": {name}, \"arguments\": "))],
            after: source::literal("}"),
            are_tagged: false,
        }
    }

    fn calls(&self, more: usize) -> String {
        let Self { before_all, after_all, between, .. } = self;
        let more = match more {
            0 => String::new(),
            more => format!("({between} call){{0,{more}}}"),
        };
        format!("calls: {before_all} call {more} {after_all}\n")
    }

    fn call(&self, function: &Function) -> Result<String, InvalidField> {
        let name = Value::from(function.name.as_str()).to_string();
        let part = |part: &Part| match part {
            Part::Rule(rule) => rule.clone(),
            Part::Text(text) => source::literal(&text(&name)),
        };
        let before: Vec<String> = self.before.iter().map(part).collect();
        let arguments = match self.are_tagged {
            true => parameters::arguments(function)?,
            false => as_json(function),
        };
        Ok(format!("{} {arguments} {}", before.join(" "), self.after))
    }
}

fn as_json(function: &Function) -> String {
    source::json_schema(&object(&function.parameters), &style(function))
}

/// Models write calls on one line.
pub(super) fn style(function: &Function) -> SchemaStyle {
    let whitespace = Some(" ".to_owned());
    SchemaStyle { is_lenient: !function.is_strict, whitespace, ..SchemaStyle::default() }
}

/// Arguments are an object, whether or not the schema says so.
pub(super) fn object(parameters: &Map<String, Value>) -> Map<String, Value> {
    let mut schema = parameters.clone();
    if schema.is_empty() {
        schema.insert("additionalProperties".to_owned(), json!(false));
    }
    if !schema.contains_key("$ref") && !schema.contains_key("anyOf") {
        schema.entry("type").or_insert_with(|| json!("object"));
    }
    schema
}
