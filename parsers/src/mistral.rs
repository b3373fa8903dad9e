//! Mistral's tool calls: `[TOOL_CALLS]` and an array of `{"name": …, "arguments": …}`, or in newer models a name and its
//! arguments, `[TOOL_CALLS]name{…}` or `[TOOL_CALLS]name[ARGS]{…}`, once for each call.

use crate::{
    Delta,
    json::{CallObject, CallProgress, Progress, ValueEnd},
    marks::{ARGS, CALL_ID, TOOL_CALLS},
    text::{Found, Pending, Trimmed},
};

/// Takes content and calls apart.
#[derive(Debug, Default)]
pub(crate) struct Mistral {
    pending: Pending,
    content: Trimmed,
    has_calls: bool,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Content,
    /// After the mark.
    Marked,
    /// Between the array's calls.
    Array,
    /// In one of them.
    Item(Box<CallObject>),
    /// A function's name, and perhaps a call's id, which is not shown.
    Name(String),
    Arguments(ValueEnd),
}

impl Mistral {
    pub(crate) fn push(&mut self, text: &str, out: &mut Vec<Delta>) {
        self.pending.push(text);
        while self.step(out) {}
    }

    pub(crate) fn finish(&mut self, out: &mut Vec<Delta>) {
        match std::mem::take(&mut self.state) {
            State::Item(call) if !call.is_told() => {
                self.show(&format!("{TOOL_CALLS}[{}", call.into_raw()), out);
            }
            State::Name(name) => self.show(&format!("{TOOL_CALLS}{name}"), out),
            _ => {}
        }
        let rest = self.pending.take();
        self.show(&rest, out);
        if !self.has_calls {
            Delta::content(&self.content.take_spaces(), out);
        }
    }

    fn step(&mut self, out: &mut Vec<Delta>) -> bool {
        match std::mem::take(&mut self.state) {
            State::Content => match self.pending.take_until(&[TOOL_CALLS]) {
                Found::Text(text) => self.show(&text, out),
                Found::Mark(before, _) => {
                    self.show(&before, out);
                    self.state = State::Marked;
                    return true;
                }
            },
            State::Marked => return self.step_marked(),
            State::Array => return self.step_array(),
            State::Item(call) => return self.step_item(call, out),
            State::Name(name) => return self.step_name(name, out),
            State::Arguments(end) => return self.step_arguments(end, out),
        }
        false
    }

    fn step_marked(&mut self) -> bool {
        self.pending.skip_space();
        let Some(c) = self.pending.peek() else {
            self.state = State::Marked;
            return false;
        };
        self.state = if c == '[' {
            self.pending.next_char();
            State::Array
        } else {
            State::Name(String::new())
        };
        true
    }

    fn step_array(&mut self) -> bool {
        match self.pending.peek() {
            None => self.state = State::Array,
            Some('{') => {
                self.state = State::Item(Box::default());
                return true;
            }
            Some(c) => {
                self.pending.next_char();
                if c == ',' || c.is_whitespace() {
                    self.state = State::Array;
                }
                return true;
            }
        }
        false
    }

    fn step_item(&mut self, mut call: Box<CallObject>, out: &mut Vec<Delta>) -> bool {
        match call.follow(&mut self.pending, |_| true, out) {
            CallProgress::Inside => {
                self.has_calls |= call.is_told();
                self.state = State::Item(call);
                return false;
            }
            CallProgress::Broken => self.show(&format!("{TOOL_CALLS}[{}", call.into_raw()), out),
            CallProgress::Ends => {
                self.note_call();
                self.state = State::Array;
            }
        }
        true
    }

    fn step_name(&mut self, mut name: String, out: &mut Vec<Delta>) -> bool {
        match self.pending.take_until(&["{", ARGS, TOOL_CALLS]) {
            Found::Text(text) => {
                name.push_str(&text);
                self.state = State::Name(name);
                false
            }
            Found::Mark(before, 2) => {
                self.show(&format!("{TOOL_CALLS}{name}{before}"), out);
                self.state = State::Marked;
                true
            }
            Found::Mark(before, which) => {
                name.push_str(&before);
                let function = name.split(CALL_ID).next().unwrap_or_default().trim();
                out.push(Delta::ToolCall { name: function.to_owned() });
                self.note_call();
                let mut end = ValueEnd::default();
                if which == 0 {
                    end.push('{');
                    Delta::arguments("{", out);
                }
                self.state = State::Arguments(end);
                true
            }
        }
    }

    fn step_arguments(&mut self, mut end: ValueEnd, out: &mut Vec<Delta>) -> bool {
        while let Some(c) = self.pending.next_char() {
            let progress = end.push(c);
            if progress != Progress::Ended {
                Delta::arguments(c.encode_utf8(&mut [0; 4]), out);
            }
            if progress != Progress::Inside {
                return true;
            }
        }
        self.state = State::Arguments(end);
        false
    }

    fn note_call(&mut self) {
        self.has_calls = true;
        self.content.skip_space();
    }

    fn show(&mut self, text: &str, out: &mut Vec<Delta>) {
        Delta::content(&self.content.push(text), out);
    }
}
