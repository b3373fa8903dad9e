//! Chat templates, rendered as transformers renders them (`apply_chat_template` in its `chat_template_utils.py`): Jinja
//! with trimmed blocks, Python's string methods, `tojson` as `json.dumps` writes, `raise_exception`, `strftime_now`.

mod date;
mod json;

use std::time::SystemTime;

use minijinja::{
    Environment, Error, ErrorKind, Value, context,
    syntax::SyntaxConfig,
    value::{Kwargs, Serde},
};
use serde_json::Map;

use crate::{
    error::{ChatTemplateMissing, RenderError, TemplateInvalid},
    folder::{ChatTemplates, NamedTemplate, TokenizerConfig},
};

/// One conversation to render.
#[derive(Clone, Debug)]
pub struct ChatInput<'a> {
    /// Messages with at least `role`; `content` is a string.
    pub messages: &'a [serde_json::Value],
    /// Tool definitions in OpenAI's shape; with some, a model's own `tool_use` template is preferred.
    pub tools: Option<&'a [serde_json::Value]>,
    /// Whether the text ends with the opening of the assistant's turn.
    pub add_generation_prompt: bool,
    /// More variables for the template, e.g. `enable_thinking`.
    pub kwargs: &'a Map<String, serde_json::Value>,
}

/// The model's templates, compiled.
pub(crate) struct ChatRenderer {
    env: Environment<'static>,
    special_tokens: Map<String, serde_json::Value>,
}

const DEFAULT: &str = "default";
const TOOL_USE: &str = "tool_use";

impl ChatRenderer {
    pub(crate) fn new(config: TokenizerConfig) -> Result<Self, TemplateInvalid> {
        let special_tokens = special_tokens(&config.other);
        let templates = match config.chat_template {
            None => Vec::new(),
            Some(ChatTemplates::One(template)) => vec![NamedTemplate { name: DEFAULT.to_owned(), template }],
            Some(ChatTemplates::Several(templates)) => templates,
        };
        let mut env = environment();
        for NamedTemplate { name, template } in templates {
            env.add_template_owned(name.clone(), template)
                .map_err(|source| TemplateInvalid { name, source })?;
        }
        Ok(Self { env, special_tokens })
    }

    pub(crate) fn has_template(&self) -> bool {
        self.env.get_template(DEFAULT).is_ok()
    }

    /// The texts of all templates.
    pub(crate) fn sources(&self) -> String {
        self.env.templates().map(|(_, template)| template.source().to_owned()).collect()
    }

    pub(crate) fn eos_token(&self) -> Option<&str> {
        self.special_tokens.get("eos_token")?.as_str()
    }

    pub(crate) fn render(&self, input: &ChatInput<'_>, now: SystemTime) -> Result<String, RenderError> {
        let tool_template = input.tools.and_then(|_| self.env.get_template(TOOL_USE).ok());
        let template = match tool_template {
            Some(template) => template,
            None => self.env.get_template(DEFAULT).map_err(|_| ChatTemplateMissing)?,
        };
        // transformers defines `tools` and `documents` even when there are none.
        let given = context! {
            messages => Value::from(Serde(input.messages)),
            tools => Value::from(Serde(input.tools)),
            documents => (),
            add_generation_prompt => input.add_generation_prompt,
            strftime_now => Value::from_function(move |format: &str| date::strftime(format, now)),
        };
        let kwargs = Value::from(Serde(input.kwargs));
        let special_tokens = Value::from(Serde(&self.special_tokens));
        template
            .render(context! { ..given, ..kwargs, ..special_tokens })
            .map_err(|error| RenderError::Refused(reason(&error)))
    }
}

fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    let mut syntax = SyntaxConfig::builder();
    syntax.trim_blocks(true).lstrip_blocks(true);
    env.set_syntax(syntax.build().unwrap_or_default());
    env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    env.add_function("raise_exception", raise_exception);
    env.add_filter("tojson", tojson);
    env
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

fn tojson(value: &Value, kwargs: Kwargs) -> Result<String, Error> {
    let style = json::Style {
        indent: kwargs.get::<Option<usize>>("indent")?,
        ensure_ascii: kwargs.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sort_keys: kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    kwargs.assert_all_used()?;
    let value = serde_json::to_value(value).map_err(|error| {
        Error::new(ErrorKind::InvalidOperation, "not serializable to JSON").with_source(error)
    })?;
    Ok(json::dumps(&value, style))
}

/// What the template said, or where it failed.
fn reason(error: &Error) -> String {
    match (error.kind(), error.detail(), error.line()) {
        (ErrorKind::InvalidOperation, Some(said), _) => said.to_owned(),
        (_, _, Some(line)) => format!("{error} (line {line} of the template)"),
        _ => error.to_string(),
    }
}

/// `bos_token`, `eos_token` and the like: strings, or objects with the string as `content`.
fn special_tokens(config: &Map<String, serde_json::Value>) -> Map<String, serde_json::Value> {
    let text = |value: &serde_json::Value| match value {
        serde_json::Value::Object(token) => token.get("content").cloned(),
        serde_json::Value::String(_) => Some(value.clone()),
        _ => None,
    };
    config
        .iter()
        .filter(|(name, _)| name.ends_with("_token"))
        .filter_map(|(name, value)| Some((name.clone(), text(value)?)))
        .collect()
}
