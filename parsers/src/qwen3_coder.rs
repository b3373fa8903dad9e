//! Qwen3-Coder's tool calls, which Qwen3.5 and others write, too:
//!
//! ```text
//!   <tool_call>
//!   <function=name>
//!   <parameter=key>
//!   value
//!   </parameter>
//!   </function>
//!   </tool_call>
//! ```
//!
//! Values are text, which becomes JSON by the function's schema; one line break on each side of it is not part of it. Text is told
//! as it comes, everything else when it is complete.

mod argument;

use std::sync::Arc;

use serde_json::Value;

use argument::Argument;

use crate::{
    ArgumentKind, Delta, Function,
    marks::{
        FUNCTION_CLOSE, FUNCTION_OPEN, PARAMETER_CLOSE, PARAMETER_OPEN, TOOL_CALL_CLOSE, TOOL_CALL_OPEN,
    },
    text::{Found, Pending, Trimmed},
};

/// Takes content and calls apart.
#[derive(Debug)]
pub(crate) struct Qwen3Coder {
    functions: Arc<[Function]>,
    pending: Pending,
    content: Trimmed,
    has_calls: bool,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Content,
    /// A function's name. What stood before it is kept: it is content when there is no such call.
    Name {
        before: String,
        name: String,
    },
    /// In a call, between its arguments.
    Between(Call),
    Key(Call, String),
    Value(Call, Argument),
    /// After a call, before its closing tag.
    Close,
}

/// Longer ones are no names.
const MOST_NAME_BYTES: usize = 256;

/// A call under way.
#[derive(Debug)]
struct Call {
    /// Its place among the functions, if it is one of them.
    function: Option<usize>,
    /// Arguments so far.
    keys: Vec<String>,
}

impl Qwen3Coder {
    pub(crate) fn new(functions: Arc<[Function]>) -> Self {
        Self {
            functions,
            pending: Pending::default(),
            content: Trimmed::default(),
            has_calls: false,
            state: State::Content,
        }
    }

    pub(crate) fn push(&mut self, text: &str, out: &mut Vec<Delta>) {
        self.pending.push(text);
        while self.step(out) {}
    }

    /// A call that is not complete stays so: whoever reads its arguments sees that they end in the midst.
    pub(crate) fn finish(&mut self, out: &mut Vec<Delta>) {
        let rest = self.pending.take();
        match std::mem::take(&mut self.state) {
            State::Content => self.show(&rest, out),
            State::Name { before, name } => self.show(&(before + &name + &rest), out),
            State::Value(_, mut argument) => {
                argument.push(&rest);
                argument.tell(out);
            }
            State::Between(_) | State::Key(..) | State::Close => {}
        }
        if !self.has_calls {
            Delta::content(&self.content.take_spaces(), out);
        }
    }

    /// One step; says whether another may follow.
    fn step(&mut self, out: &mut Vec<Delta>) -> bool {
        match std::mem::take(&mut self.state) {
            State::Content => self.step_content(out),
            State::Name { before, name } => self.step_name(before, name, out),
            State::Between(call) => self.step_between(call, out),
            State::Key(call, key) => self.step_key(call, key, out),
            State::Value(call, argument) => self.step_value(call, argument, out),
            State::Close => {
                self.pending.skip_space();
                let is_open = self.pending.is_empty() || self.pending.take_mark(TOOL_CALL_CLOSE).is_none();
                if is_open {
                    self.state = State::Close;
                }
                !is_open
            }
        }
    }

    fn step_content(&mut self, out: &mut Vec<Delta>) -> bool {
        match self.pending.take_until(&[TOOL_CALL_OPEN, FUNCTION_OPEN]) {
            Found::Text(text) => {
                self.show(&text, out);
                false
            }
            Found::Mark(before, which) => {
                self.show(&before, out);
                let mark = [TOOL_CALL_OPEN, FUNCTION_OPEN][which].to_owned();
                self.state = State::Name { before: mark, name: String::new() };
                true
            }
        }
    }

    /// Up to the end of the tag. Models leave the outer tag out at times: then only a name that is known makes a call.
    fn step_name(&mut self, mut before: String, mut name: String, out: &mut Vec<Delta>) -> bool {
        if before.trim_end() == TOOL_CALL_OPEN {
            while self.pending.peek().is_some_and(char::is_whitespace) {
                before.extend(self.pending.next_char());
            }
            match self.pending.take_mark(FUNCTION_OPEN) {
                Some(true) => before.push_str(FUNCTION_OPEN),
                Some(false) => {
                    self.show(&before, out);
                    return true;
                }
                None => {
                    self.state = State::Name { before, name };
                    return false;
                }
            }
        }
        while let Some(c) = self.pending.next_char() {
            if c == '>' {
                return self.begin_call(&before, &name, out);
            }
            name.push(c);
            if c == '<' || c == '\n' || name.len() > MOST_NAME_BYTES {
                // It may begin another mark.
                name.pop();
                self.show(&(before + &name), out);
                let rest = self.pending.take();
                self.pending.push(&format!("{c}{rest}"));
                return true;
            }
        }
        self.state = State::Name { before, name };
        false
    }

    fn begin_call(&mut self, before: &str, name: &str, out: &mut Vec<Delta>) -> bool {
        let name = name.trim().trim_matches('"');
        let function = self.functions.iter().position(|function| function.name == name);
        if name.is_empty() || (function.is_none() && before == FUNCTION_OPEN) {
            self.show(&format!("{before}{name}>"), out);
            return true;
        }
        out.push(Delta::ToolCall { name: name.to_owned() });
        self.has_calls = true;
        self.content.skip_space();
        self.state = State::Between(Call { function, keys: Vec::new() });
        true
    }

    fn step_between(&mut self, call: Call, out: &mut Vec<Delta>) -> bool {
        match self.pending.take_until(&[PARAMETER_OPEN, FUNCTION_CLOSE, TOOL_CALL_CLOSE]) {
            Found::Text(_) => {
                self.state = State::Between(call);
                return false;
            }
            Found::Mark(_, 0) => self.state = State::Key(call, String::new()),
            Found::Mark(_, which) => {
                Delta::arguments(if call.keys.is_empty() { "{}" } else { "}" }, out);
                self.state = if which == 1 { State::Close } else { State::Content };
            }
        }
        true
    }

    fn step_key(&mut self, mut call: Call, mut key: String, out: &mut Vec<Delta>) -> bool {
        match self.pending.take_until(&[">"]) {
            Found::Text(text) => {
                key.push_str(&text);
                self.state = State::Key(call, key);
                false
            }
            Found::Mark(before, _) => {
                key.push_str(&before);
                let key = key.trim().trim_matches('"');
                let is_repeated = call.keys.iter().any(|earlier| earlier == key);
                if !is_repeated {
                    let open = if call.keys.is_empty() { "{" } else { ", " };
                    Delta::arguments(&format!("{open}{}: ", Value::from(key)), out);
                    call.keys.push(key.to_owned());
                }
                let function = call.function.map(|at| &self.functions[at]);
                let kind = function.map_or(ArgumentKind::Text, |function| function.kind_of(key));
                self.state = State::Value(call, Argument::new(kind, is_repeated));
                true
            }
        }
    }

    /// An argument whose closing tag is missing ends with the next tag, as in vLLM.
    fn step_value(&mut self, call: Call, mut argument: Argument, out: &mut Vec<Delta>) -> bool {
        const NEXT: [&str; 3] = [PARAMETER_CLOSE, PARAMETER_OPEN, FUNCTION_CLOSE];
        match self.pending.take_until(&NEXT) {
            Found::Text(text) => {
                argument.push(&text);
                argument.tell(out);
                self.state = State::Value(call, argument);
                false
            }
            Found::Mark(before, which) => {
                argument.push(&before);
                argument.end(out);
                if which > 0 {
                    let rest = self.pending.take();
                    self.pending.push(NEXT[which]);
                    self.pending.push(&rest);
                }
                self.state = State::Between(call);
                true
            }
        }
    }

    fn show(&mut self, text: &str, out: &mut Vec<Delta>) {
        Delta::content(&self.content.push(text), out);
    }
}
