//! What parsers say.

/// The next piece of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delta {
    /// Of what is meant for the reader.
    Content(String),
    /// Of what the model thinks before it answers.
    Reasoning(String),
    /// A call of a function begins.
    ToolCall {
        /// The function.
        name: String,
    },
    /// Of the arguments of the last call, which are JSON.
    Arguments(String),
}

impl Delta {
    pub(crate) fn content(text: &str, out: &mut Vec<Self>) {
        match out.last_mut() {
            _ if text.is_empty() => {}
            Some(Self::Content(last)) => last.push_str(text),
            _ => out.push(Self::Content(text.to_owned())),
        }
    }

    pub(crate) fn reasoning(text: &str, out: &mut Vec<Self>) {
        match out.last_mut() {
            _ if text.is_empty() => {}
            Some(Self::Reasoning(last)) => last.push_str(text),
            _ => out.push(Self::Reasoning(text.to_owned())),
        }
    }

    pub(crate) fn arguments(text: &str, out: &mut Vec<Self>) {
        match out.last_mut() {
            _ if text.is_empty() => {}
            Some(Self::Arguments(last)) => last.push_str(text),
            _ => out.push(Self::Arguments(text.to_owned())),
        }
    }
}
