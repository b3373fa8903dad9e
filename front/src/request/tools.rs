//! Functions that the model may call, and whether it must.

use serde_json::{Map, Value, json};

use super::super::fields::{Fields, InvalidField, describe};

/// Tools of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct ToolUse {
    /// As they came, for the model's template.
    definitions: Vec<Value>,
    pub(crate) functions: Vec<Function>,
    pub(crate) choice: ToolChoice,
    /// Whether several may be called at once.
    pub(crate) is_parallel: bool,
}

/// One function.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// A JSON schema of its arguments.
    pub(crate) parameters: Map<String, Value>,
    /// Keywords of the schema that can't be enforced are errors.
    pub(crate) is_strict: bool,
}

/// OpenAI's `tool_choice`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ToolChoice {
    /// None is called.
    None,
    /// The model decides.
    #[default]
    Auto,
    /// At least one is called.
    Required,
    /// This one is called, by its place in the list.
    Named(usize),
}

const MOST_FUNCTIONS: usize = 128;
const MOST_NAME_BYTES: usize = 64;

impl Function {
    /// As the parser of the model's output needs it.
    pub(crate) fn for_parser(&self) -> baton_parsers::Function {
        baton_parsers::Function { name: self.name.clone(), parameters: self.parameters.clone() }
    }
}

impl ToolUse {
    /// What the template is shown: nothing when nothing may be called.
    pub(crate) fn shown(&self) -> Option<&[Value]> {
        (self.choice != ToolChoice::None && !self.definitions.is_empty()).then_some(&self.definitions[..])
    }

    /// Whether a call may come.
    pub(crate) fn is_on(&self) -> bool {
        self.shown().is_some()
    }

    /// Those that must be chosen from; `None` when none need be called.
    pub(crate) fn forced(&self) -> Option<&[Function]> {
        match self.choice {
            ToolChoice::None | ToolChoice::Auto => None,
            ToolChoice::Required => Some(&self.functions),
            ToolChoice::Named(at) => Some(std::slice::from_ref(&self.functions[at])),
        }
    }
}

pub(super) fn take_tools(fields: &mut Fields) -> Result<ToolUse, InvalidField> {
    let definitions = fields.array("tools")?.unwrap_or_default();
    if definitions.len() > MOST_FUNCTIONS {
        let problem = format!("expected at most {MOST_FUNCTIONS} tools, got {}", definitions.len());
        return Err(InvalidField::new("tools", problem));
    }
    let functions: Vec<Function> =
        definitions.iter().enumerate().map(|(at, tool)| function(at, tool)).collect::<Result<_, _>>()?;
    let choice = take_choice(fields, &functions)?;
    let is_parallel = fields.boolean("parallel_tool_calls")?.unwrap_or(true);
    Ok(ToolUse { definitions, functions, choice, is_parallel })
}

fn function(at: usize, tool: &Value) -> Result<Function, InvalidField> {
    let param = format!("tools[{at}]");
    match tool["type"].as_str() {
        Some("function") => {}
        _ => return Err(InvalidField::expected(format!("{param}.type"), "\"function\"", &tool["type"])),
    }
    let function = &tool["function"];
    let name = match &function["name"] {
        Value::String(name) if !name.is_empty() && name.len() <= MOST_NAME_BYTES => name.clone(),
        other => {
            let expected = format!("a name of 1 to {MOST_NAME_BYTES} bytes");
            return Err(InvalidField::expected(format!("{param}.function.name"), &expected, other));
        }
    };
    let parameters = match &function["parameters"] {
        Value::Null => Map::new(),
        Value::Object(schema) => schema.clone(),
        other => {
            let param = format!("{param}.function.parameters");
            return Err(InvalidField::expected(param, "a JSON schema, which is an object", other));
        }
    };
    let is_strict = function["strict"] == json!(true);
    Ok(Function { name, parameters, is_strict })
}

fn take_choice(fields: &mut Fields, functions: &[Function]) -> Result<ToolChoice, InvalidField> {
    const PARAM: &str = "tool_choice";
    let needs_tools = |choice| {
        if functions.is_empty() {
            return Err(InvalidField::new(PARAM, "expected tools to choose from, got none"));
        }
        Ok(choice)
    };
    match fields.take(PARAM) {
        None => Ok(ToolChoice::Auto),
        Some(Value::String(choice)) if choice == "auto" => Ok(ToolChoice::Auto),
        Some(Value::String(choice)) if choice == "none" => Ok(ToolChoice::None),
        Some(Value::String(choice)) if choice == "required" => needs_tools(ToolChoice::Required),
        Some(Value::Object(choice)) if choice.get("type") == Some(&json!("function")) => {
            let name = choice.get("function").and_then(|function| function["name"].as_str());
            let name = name.ok_or_else(|| {
                InvalidField::new("tool_choice.function.name", "expected a name, got nothing")
            })?;
            let at = functions.iter().position(|function| function.name == name);
            let at = at.ok_or_else(|| {
                InvalidField::new("tool_choice.function.name", format!("there is no tool named {name:?}"))
            })?;
            needs_tools(ToolChoice::Named(at))
        }
        Some(other) => {
            let found = describe(&other);
            let problem = format!(
                "{found} is not supported, only \"none\", \"auto\", \"required\" and a function's name"
            );
            Err(InvalidField::new(PARAM, problem))
        }
    }
}
