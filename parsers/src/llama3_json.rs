//! Llama 3's tool calls: the whole answer is `{"name": …, "parameters": …}`, perhaps after `<|python_tag|>`, perhaps several with
//! semicolons between them.
//!
//! An answer may be JSON without being a call, so only an object that names a function of the request is taken for one.

use std::sync::Arc;

use crate::{
    Delta, Function,
    json::{CallObject, CallProgress},
    marks::PYTHON_TAG,
    text::{Found, Pending},
};

/// Takes content and calls apart.
#[derive(Debug)]
pub(crate) struct Llama3Json {
    functions: Arc<[Function]>,
    pending: Pending,
    state: State,
}

#[derive(Debug)]
enum State {
    /// A call may begin here: what was left out since the last thing shown is kept.
    Start(String),
    Content,
    Call(String, Box<CallObject>),
}

impl Llama3Json {
    pub(crate) fn new(functions: Arc<[Function]>) -> Self {
        Self { functions, pending: Pending::default(), state: State::Start(String::new()) }
    }

    pub(crate) fn push(&mut self, text: &str, out: &mut Vec<Delta>) {
        self.pending.push(text);
        while self.step(out) {}
    }

    pub(crate) fn finish(&mut self, out: &mut Vec<Delta>) {
        match std::mem::replace(&mut self.state, State::Content) {
            State::Call(before, call) if !call.is_told() => {
                Delta::content(&(before + &call.into_raw()), out);
            }
            State::Start(before) if !before.trim_matches(is_between).is_empty() => {
                Delta::content(&before, out)
            }
            State::Start(_) | State::Content | State::Call(..) => {}
        }
        Delta::content(&self.pending.take(), out);
    }

    fn step(&mut self, out: &mut Vec<Delta>) -> bool {
        match std::mem::replace(&mut self.state, State::Content) {
            State::Start(before) => self.step_start(before, out),
            State::Call(before, call) => self.step_call(before, call, out),
            State::Content => match self.pending.take_until(&[PYTHON_TAG]) {
                Found::Text(text) => {
                    Delta::content(&text, out);
                    false
                }
                Found::Mark(before, _) => {
                    Delta::content(&before, out);
                    self.state = State::Start(PYTHON_TAG.to_owned());
                    true
                }
            },
        }
    }

    fn step_start(&mut self, mut before: String, out: &mut Vec<Delta>) -> bool {
        match self.pending.peek() {
            None => {
                self.state = State::Start(before);
                return false;
            }
            Some('{') => {
                self.state = State::Call(before, Box::default());
                return true;
            }
            Some(c) if is_between(c) => {
                self.pending.next_char();
                before.push(c);
                self.state = State::Start(before);
                return true;
            }
            Some(_) => {}
        }
        match self.pending.take_mark(PYTHON_TAG) {
            Some(true) => self.state = State::Start(before + PYTHON_TAG),
            Some(false) => Delta::content(&before, out),
            None => {
                self.state = State::Start(before);
                return false;
            }
        }
        true
    }

    fn step_call(&mut self, before: String, mut call: Box<CallObject>, out: &mut Vec<Delta>) -> bool {
        let is_known = |name: &str| self.functions.iter().any(|function| function.name == name);
        match call.follow(&mut self.pending, is_known, out) {
            CallProgress::Inside => {
                self.state = State::Call(before, call);
                return false;
            }
            CallProgress::Broken => Delta::content(&(before + &call.into_raw()), out),
            CallProgress::Ends => self.state = State::Start(String::new()),
        }
        true
    }
}

/// What stands between calls.
fn is_between(c: char) -> bool {
    c.is_whitespace() || c == ';'
}
