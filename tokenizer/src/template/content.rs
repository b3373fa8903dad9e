//! Contents of messages: text, or a list of text parts. Templates differ in which they take, for which roles.
//!
//! Tried once, when a template is loaded: what it makes of a list is not said anywhere, and reading its code would be guessing.

use std::{borrow::Cow, collections::BTreeSet};

use serde_json::{Value, json};

const ROLES: [&str; 4] = ["system", "user", "assistant", "tool"];
/// Parts of the conversations that are tried.
const PROBES: [&str; 2] = ["First part of a probe.", "Second part of a probe."];

/// What a template takes.
#[derive(Debug, Default)]
pub(super) struct ContentForms {
    /// Roles whose lists it renders as the text that is in them.
    takes_parts: BTreeSet<&'static str>,
    /// Text of a user has to be put into a list.
    needs_parts: bool,
}

impl ContentForms {
    /// `render` renders a conversation with the template; `None`: it refuses.
    pub(super) fn try_with(render: impl Fn(&[Value]) -> Option<String>) -> Self {
        let shows = |content: Value, role: &str, probes: &[&str]| {
            let text = render(&conversation(role, content)).unwrap_or_default();
            // A list written as JSON or as Python would be is no text.
            probes.iter().all(|probe| text.contains(probe))
                && !["'type'", "\"type\""].iter().any(|key| text.contains(key))
        };
        let takes_parts: BTreeSet<_> =
            ROLES.into_iter().filter(|role| shows(parts(&PROBES), role, &PROBES)).collect();
        let needs_parts = takes_parts.contains("user") && !shows(json!(PROBES[0]), "user", &PROBES[..1]);
        Self { takes_parts, needs_parts }
    }

    /// The messages as the template takes them. Parts of a text are joined by line breaks, as vLLM joins them.
    pub(super) fn fit<'a>(&self, messages: &'a [Value]) -> Cow<'a, [Value]> {
        if !messages.iter().any(|message| self.fitted(message).is_some()) {
            return Cow::Borrowed(messages);
        }
        let fit = |message: &Value| {
            let mut fitted = message.clone();
            if let Some(content) = self.fitted(message) {
                fitted["content"] = content;
            }
            fitted
        };
        messages.iter().map(fit).collect()
    }

    /// Another content for the message; `None`: it may stay as it is.
    fn fitted(&self, message: &Value) -> Option<Value> {
        let takes_parts = message["role"].as_str().is_some_and(|role| self.takes_parts.contains(role));
        match &message["content"] {
            Value::Array(parts) if !takes_parts => {
                let texts: Vec<&str> = parts.iter().filter_map(|part| part["text"].as_str()).collect();
                Some(texts.join("\n").into())
            }
            Value::String(text) if takes_parts && self.needs_parts => Some(parts(&[text])),
            _ => None,
        }
    }
}

fn parts(texts: &[&str]) -> Value {
    texts.iter().map(|text| json!({"type": "text", "text": text})).collect()
}

/// One in which a message of that role has a place.
fn conversation(role: &str, content: Value) -> Vec<Value> {
    let message = |role: &str, content: Value| json!({"role": role, "content": content});
    match role {
        "user" => vec![message(role, content)],
        "system" => vec![message(role, content), message("user", "x".into())],
        "assistant" => {
            vec![message("user", "x".into()), message(role, content), message("user", "y".into())]
        }
        _ => {
            let call =
                json!({"id": "abcdef123", "type": "function", "function": {"name": "f", "arguments": {}}});
            let result = json!({"role": role, "tool_call_id": "abcdef123", "name": "f", "content": content});
            let caller = json!({"role": "assistant", "content": "", "tool_calls": [call]});
            vec![message("user", "x".into()), caller, result]
        }
    }
}
