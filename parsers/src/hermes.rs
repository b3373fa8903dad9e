//! Hermes' and Qwen's tool calls: `<tool_call>{"name": …, "arguments": …}</tool_call>`, any number, after some content.

use crate::{
    Delta,
    json::{CallObject, CallProgress},
    marks::{TOOL_CALL_CLOSE, TOOL_CALL_OPEN},
    text::{Found, Pending, Trimmed},
};

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
            self.show(&format!("{TOOL_CALL_OPEN}{}", call.into_raw()), out);
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
            State::Content => match self.pending.take_until(&[TOOL_CALL_OPEN]) {
                Found::Text(text) => self.show(&text, out),
                Found::Mark(before, _) => {
                    self.show(&before, out);
                    self.state = State::Call(Box::default());
                    return true;
                }
            },
            State::Call(call) => return self.step_call(call, out),
            State::Close => match self.pending.take_until(&[TOOL_CALL_CLOSE]) {
                Found::Text(_) => self.state = State::Close,
                Found::Mark(..) => return true,
            },
        }
        false
    }

    fn step_call(&mut self, mut call: Box<CallObject>, out: &mut Vec<Delta>) -> bool {
        match call.follow(&mut self.pending, |_| true, out) {
            CallProgress::Inside => {
                self.has_calls |= call.is_told();
                self.state = State::Call(call);
                return false;
            }
            CallProgress::Broken => self.show(&format!("{TOOL_CALL_OPEN}{}", call.into_raw()), out),
            CallProgress::Ends => {
                (self.has_calls, self.state) = (true, State::Close);
                self.content.skip_space();
            }
        }
        true
    }

    fn show(&mut self, text: &str, out: &mut Vec<Delta>) {
        Delta::content(&self.content.push(text), out);
    }
}
