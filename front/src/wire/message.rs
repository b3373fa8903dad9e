//! A message taken apart: content, reasoning, tool calls; whole, or a stream's next piece of it.

use baton_parsers::Delta;
use rand::Rng as _;
use serde::Serialize;

use super::{Choice, Writer};

/// OpenAI's tool call, or a piece of one: then `index` says of which, and only the first has an id and a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct ToolCall {
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    function: CalledFunction,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct CalledFunction {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    arguments: String,
}

/// What one event adds to a message.
#[derive(Debug, Default)]
pub(super) struct Addition {
    pub(super) content: Option<String>,
    pub(super) reasoning: Option<String>,
    pub(super) calls: Vec<ToolCall>,
}

impl Addition {
    pub(super) fn is_empty(&self) -> bool {
        self.content.is_none() && self.reasoning.is_none() && self.calls.is_empty()
    }
}

impl Writer {
    /// Adds to a whole choice.
    pub(crate) fn add(&mut self, index: u32, deltas: Vec<Delta>, choice: &mut Choice) {
        let Addition { content, reasoning, calls } = self.addition(index, &deltas);
        choice.text.push_str(&content.unwrap_or_default());
        if let Some(reasoning) = reasoning {
            choice.reasoning.get_or_insert_default().push_str(&reasoning);
        }
        for call in calls {
            match choice.calls.last_mut().filter(|_| call.id.is_none()) {
                Some(last) => last.function.arguments.push_str(&call.function.arguments),
                None => choice.calls.push(ToolCall { index: None, ..call }),
            }
        }
    }

    pub(super) fn addition(&mut self, index: u32, deltas: &[Delta]) -> Addition {
        let mut addition = Addition::default();
        for delta in deltas {
            match delta {
                Delta::Content(text) => addition.content.get_or_insert_default().push_str(text),
                Delta::Reasoning(text) => addition.reasoning.get_or_insert_default().push_str(text),
                Delta::ToolCall { name } => addition.calls.push(self.begin_call(index, name)),
                Delta::Arguments(text) => self.add_arguments(index, text, &mut addition.calls),
            }
        }
        addition
    }

    fn begin_call(&mut self, index: u32, name: &str) -> ToolCall {
        let calls = &mut self.calls[usize::try_from(index).unwrap_or(usize::MAX)];
        let function = CalledFunction { name: Some(name.to_owned()), arguments: String::new() };
        let call = ToolCall {
            index: Some(*calls),
            id: Some(call_id(self.has_short_ids)),
            kind: Some("function"),
            function,
        };
        *calls += 1;
        call
    }

    fn add_arguments(&self, index: u32, text: &str, calls: &mut Vec<ToolCall>) {
        let at = self.calls[usize::try_from(index).unwrap_or(usize::MAX)].saturating_sub(1);
        match calls.last_mut() {
            Some(last) if last.index == Some(at) => last.function.arguments.push_str(text),
            _ => {
                let function = CalledFunction { name: None, arguments: text.to_owned() };
                calls.push(ToolCall { index: Some(at), function, ..ToolCall::default() });
            }
        }
    }
}

fn call_id(is_short: bool) -> String {
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut rng = rand::rng();
    let mut letters = |count: usize| -> String {
        (0..count).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])).collect()
    };
    if is_short { letters(9) } else { format!("call_{}", letters(24)) }
}
