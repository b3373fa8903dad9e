//! One argument's text on its way to JSON.

use serde_json::Value;

use crate::{ArgumentKind, Delta};

/// An argument under way.
#[derive(Debug)]
pub(super) struct Argument {
    kind: ArgumentKind,
    /// It came before: only the first one counts.
    is_repeated: bool,
    /// What has not been told of it.
    text: String,
    /// The opening quote was told.
    has_begun: bool,
}

impl Argument {
    /// One that begins; `is_repeated`: one of that name came before.
    pub(super) fn new(kind: ArgumentKind, is_repeated: bool) -> Self {
        Self { kind, is_repeated, text: String::new(), has_begun: false }
    }

    pub(super) fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Tells what is certain of a text: not a line break that may be the last, nor what may become `null`.
    pub(super) fn tell(&mut self, out: &mut Vec<Delta>) {
        if self.is_repeated || self.kind != ArgumentKind::Text {
            return;
        }
        if !self.has_begun {
            let word = self.text.trim();
            if "null".get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word)) {
                return;
            }
            self.begin(out);
        }
        let len = self.text.len() - usize::from(self.text.ends_with('\n'));
        Delta::arguments(&escaped(&self.text[..len]), out);
        self.text.drain(..len);
    }

    fn begin(&mut self, out: &mut Vec<Delta>) {
        self.has_begun = true;
        Delta::arguments("\"", out);
        if self.text.starts_with('\n') {
            self.text.remove(0);
        }
    }

    pub(super) fn end(&mut self, out: &mut Vec<Delta>) {
        if self.is_repeated {
            return;
        }
        if self.text.ends_with('\n') {
            self.text.pop();
        }
        if self.has_begun {
            Delta::arguments(&(escaped(&self.text) + "\""), out);
        } else {
            let text = self.text.strip_prefix('\n').unwrap_or(&self.text);
            Delta::arguments(&self.kind.to_json(text), out);
        }
    }
}

/// As in a JSON string, without its quotes.
fn escaped(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}
