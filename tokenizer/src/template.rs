//! Chat templates, rendered as transformers renders them (`apply_chat_template` in its `chat_template_utils.py`): Jinja
//! with trimmed blocks, Python's string methods, `tojson` as `json.dumps` writes, `raise_exception`, `strftime_now`.

mod content;
mod date;
mod environment;
mod json;
mod methods;
mod python;
#[cfg(test)]
mod tests;

use std::time::SystemTime;

use minijinja::{Environment, Error, ErrorKind, Value, context, value::Serde};
use serde_json::Map;

use content::ContentForms;

use crate::{
    error::{ChatTemplateMissing, RenderError, TemplateInvalid},
    folder::{ChatTemplates, NamedTemplate, TokenizerConfig},
};

/// One conversation to render.
#[derive(Clone, Debug)]
pub struct ChatInput<'a> {
    /// Messages with at least `role`; `content` is a string, or a list of parts `{"type": "text", "text": …}`.
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
    contents: ContentForms,
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
        let mut env = environment::environment();
        for NamedTemplate { name, template } in templates {
            env.add_template_owned(name.clone(), environment::without_training_marks(template))
                .map_err(|source| TemplateInvalid { name, source })?;
        }
        let mut this = Self { env, special_tokens, contents: ContentForms::default() };
        this.contents = ContentForms::try_with(|messages| this.try_render(messages));
        Ok(this)
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

    /// A conversation without anything else.
    fn try_render(&self, messages: &[serde_json::Value]) -> Option<String> {
        let input = ChatInput { messages, tools: None, add_generation_prompt: false, kwargs: &Map::new() };
        self.render_fitted(&input, messages, SystemTime::UNIX_EPOCH).ok()
    }

    pub(crate) fn render(&self, input: &ChatInput<'_>, now: SystemTime) -> Result<String, RenderError> {
        self.render_fitted(input, &self.contents.fit(input.messages), now)
    }

    fn render_fitted(
        &self,
        input: &ChatInput<'_>,
        messages: &[serde_json::Value],
        now: SystemTime,
    ) -> Result<String, RenderError> {
        let tool_template = input.tools.and_then(|_| self.env.get_template(TOOL_USE).ok());
        let template = match tool_template {
            Some(template) => template,
            None => self.env.get_template(DEFAULT).map_err(|_| ChatTemplateMissing)?,
        };
        let given = context! {
            messages => Value::from(Serde(messages)),
            tools => Value::from(Serde(input.tools)),
            add_generation_prompt => input.add_generation_prompt,
            strftime_now => Value::from_function(move |format: &str| date::strftime(format, now)),
        };
        // transformers defines `tools` and `documents` even when there are none.
        let kwargs = Value::from(Serde(input.kwargs));
        let special_tokens = Value::from(Serde(&self.special_tokens));
        template
            .render(context! { ..given, ..kwargs, ..special_tokens, ..context! { documents => () } })
            .map_err(|error| RenderError::Refused(reason(&error)))
    }
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
