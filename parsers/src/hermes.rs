//! Hermes' and Qwen's tool calls: `<tool_call>{"name": …, "arguments": …}</tool_call>`, any number, after some content.

use crate::{
    Delta,
    json::{CallObject, CallProgress},
    text::{Found, Pending, Trimmed},
};

pub(crate) const OPEN: &str = "<tool_call>";
pub(crate) const CLOSE: &str = "</tool_call>";

/// Takes content and calls apart.
#[derive(Debug, Default)]
pub(crate) struct Hermes {
    pending: Pending,
    content: Trimmed,
    has_calls: bool,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Content,
    Call(Box<CallObject>),
    /// After a call's object, before its closing tag.
    Close,
}

impl Hermes {
    pub(crate) fn push(&mut self, text: &str, out: &mut Vec<Delta>) {
        self.pending.push(text);
        while self.step(out) {}
    }

    pub(crate) fn finish(&mut self, out: &mut Vec<Delta>) {
        if let State::Call(call) = std::mem::take(&mut self.state)
            && !call.is_told()
        {
            self.show(&format!("{OPEN}{}", call.into_raw()), out);
        }
        let rest = self.pending.take();
        self.show(&rest, out);
        if !self.has_calls {
            Delta::content(&self.content.take_spaces(), out);
        }
    }

    /// One step; says whether another may follow.
    fn step(&mut self, out: &mut Vec<Delta>) -> bool {
        match std::mem::take(&mut self.state) {
            State::Content => match self.pending.take_until(&[OPEN]) {
                Found::Text(text) => self.show(&text, out),
                Found::Mark(before, _) => {
                    self.show(&before, out);
                    self.state = State::Call(Box::default());
                    return true;
                }
            },
            State::Call(call) => return self.step_call(call, out),
            State::Close => match self.pending.take_until(&[CLOSE]) {
                Found::Text(_) => self.state = State::Close,
                Found::Mark(..) => return true,
            },
        }
        false
    }

    fn step_call(&mut self, mut call: Box<CallObject>, out: &mut Vec<Delta>) -> bool {
        while let Some(c) = self.pending.next_char() {
            match call.push(c, |_| true, out) {
                CallProgress::Inside => {}
                CallProgress::Broken if !call.is_told() => {
                    self.show(&format!("{OPEN}{}", call.into_raw()), out);
                    return true;
                }
                CallProgress::Ends | CallProgress::Broken => {
                    (self.has_calls, self.state) = (true, State::Close);
                    self.content.skip_space();
                    return true;
                }
            }
        }
        self.has_calls |= call.is_told();
        self.state = State::Call(call);
        false
    }

    fn show(&mut self, text: &str, out: &mut Vec<Delta>) {
        Delta::content(&self.content.push(text), out);
    }
}
