//! JSON, followed character by character: where a value ends, and what a call in it says.

use crate::{Delta, text::Pending};

/// Follows one JSON value to its end. It checks no more than it needs for that.
#[derive(Debug, Default)]
pub(crate) struct ValueEnd {
    depth: usize,
    is_in_string: bool,
    is_escaped: bool,
    has_begun: bool,
}

/// Where a value stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It goes on.
    Inside,
    /// It ends with this character.
    Ends,
    /// It ended before this character.
    Ended,
}

impl ValueEnd {
    pub(crate) fn push(&mut self, c: char) -> Progress {
        if self.is_in_string {
            return self.push_in_string(c);
        }
        match c {
            '"' => {
                (self.is_in_string, self.has_begun) = (true, true);
                Progress::Inside
            }
            '{' | '[' => {
                self.has_begun = true;
                self.depth += 1;
                Progress::Inside
            }
            '}' | ']' if self.depth > 0 => {
                self.depth -= 1;
                self.ends_at_the_top()
            }
            '}' | ']' | ',' if self.depth == 0 => Progress::Ended,
            c if c.is_whitespace() && self.depth == 0 && self.has_begun => Progress::Ended,
            _ => {
                self.has_begun |= !c.is_whitespace();
                Progress::Inside
            }
        }
    }

    fn push_in_string(&mut self, c: char) -> Progress {
        match c {
            _ if self.is_escaped => self.is_escaped = false,
            '\\' => self.is_escaped = true,
            '"' => {
                self.is_in_string = false;
                return self.ends_at_the_top();
            }
            _ => {}
        }
        Progress::Inside
    }

    fn ends_at_the_top(&self) -> Progress {
        if self.depth == 0 { Progress::Ends } else { Progress::Inside }
    }
}

/// Follows `{"name": …, "arguments": …}`, with `parameters` as another word for arguments, in whatever order.
#[derive(Debug, Default)]
pub(crate) struct CallObject {
    state: State,
    /// What has come, until the call's name is told.
    raw: String,
    is_told: bool,
    /// Arguments that came before the name.
    early: String,
    has_arguments: bool,
}

/// How a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallProgress {
    /// It goes on.
    Inside,
    /// It ends with this character.
    Ends,
    /// It is no call: [`CallObject::into_raw`] says what it is instead.
    Broken,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Open,
    Key(String, ValueEnd),
    BeforeKey,
    Colon(Field),
    Value(Field, String, ValueEnd),
    AfterValue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Name,
    Arguments,
    Other,
}

impl CallObject {
    /// Takes what has come of the call: up to its end, to where it is no call, or all of it. `is_known` says whether there is such
    /// a function.
    pub(crate) fn follow(
        &mut self,
        pending: &mut Pending,
        is_known: impl Fn(&str) -> bool,
        out: &mut Vec<Delta>,
    ) -> CallProgress {
        while let Some(c) = pending.next_char() {
            match self.push(c, &is_known, out) {
                CallProgress::Inside => {}
                // One that has begun is one whatever comes.
                CallProgress::Broken if self.is_told => return CallProgress::Ends,
                over => return over,
            }
        }
        CallProgress::Inside
    }

    fn push(&mut self, c: char, is_known: impl Fn(&str) -> bool, out: &mut Vec<Delta>) -> CallProgress {
        if !self.is_told {
            self.raw.push(c);
        }
        match std::mem::take(&mut self.state) {
            State::Open if c == '{' => self.go(State::BeforeKey),
            State::Open if c.is_whitespace() => self.go(State::Open),
            State::BeforeKey if c == '"' => {
                let mut end = ValueEnd::default();
                end.push(c);
                self.go(State::Key(c.to_string(), end))
            }
            State::BeforeKey if c == '}' => self.end(out),
            State::BeforeKey if c.is_whitespace() || c == ',' => self.go(State::BeforeKey),
            State::Key(mut key, mut end) => {
                key.push(c);
                match end.push(c) {
                    Progress::Ends => self.go(State::Colon(Field::of(&key))),
                    Progress::Inside | Progress::Ended => self.go(State::Key(key, end)),
                }
            }
            State::Colon(field) if c == ':' => {
                self.go(State::Value(field, String::new(), ValueEnd::default()))
            }
            State::Colon(field) if c.is_whitespace() => self.go(State::Colon(field)),
            State::Value(field, text, end) => self.push_value(c, field, text, end, is_known, out),
            State::AfterValue if c == ',' => self.go(State::BeforeKey),
            State::AfterValue if c == '}' => self.end(out),
            State::AfterValue if c.is_whitespace() => self.go(State::AfterValue),
            _ => CallProgress::Broken,
        }
    }

    /// Whether the call has begun, and is one whatever comes.
    pub(crate) fn is_told(&self) -> bool {
        self.is_told
    }

    /// What has come, of what is no call.
    pub(crate) fn into_raw(self) -> String {
        self.raw
    }

    fn go(&mut self, state: State) -> CallProgress {
        self.state = state;
        CallProgress::Inside
    }

    fn push_value(
        &mut self,
        c: char,
        field: Field,
        mut text: String,
        mut end: ValueEnd,
        is_known: impl Fn(&str) -> bool,
        out: &mut Vec<Delta>,
    ) -> CallProgress {
        let has_begun = end.has_begun;
        let progress = end.push(c);
        let is_part = progress != Progress::Ended && (has_begun || !c.is_whitespace());
        if is_part {
            match field {
                Field::Name => text.push(c),
                Field::Arguments => self.tell_arguments(c, out),
                Field::Other => {}
            }
        }
        if progress == Progress::Inside {
            return self.go(State::Value(field, text, end));
        }
        if field == Field::Name && !self.tell_name(&text, is_known, out) {
            return CallProgress::Broken;
        }
        match (progress, c) {
            (Progress::Ended, '}') => self.end(out),
            (Progress::Ended, ',') => self.go(State::BeforeKey),
            (Progress::Ended, ']') => CallProgress::Broken,
            _ => self.go(State::AfterValue),
        }
    }

    fn tell_name(&mut self, json: &str, is_known: impl Fn(&str) -> bool, out: &mut Vec<Delta>) -> bool {
        let Ok(name) = serde_json::from_str::<String>(json) else { return false };
        if self.is_told || name.is_empty() || !is_known(&name) {
            return false;
        }
        out.push(Delta::ToolCall { name });
        Delta::arguments(&std::mem::take(&mut self.early), out);
        (self.is_told, self.raw) = (true, String::new());
        true
    }

    fn tell_arguments(&mut self, c: char, out: &mut Vec<Delta>) {
        self.has_arguments = true;
        if self.is_told {
            Delta::arguments(c.encode_utf8(&mut [0; 4]), out);
        } else {
            self.early.push(c);
        }
    }

    fn end(&mut self, out: &mut Vec<Delta>) -> CallProgress {
        if !self.is_told {
            return CallProgress::Broken;
        }
        if !self.has_arguments {
            Delta::arguments("{}", out);
        }
        CallProgress::Ends
    }
}

impl Field {
    fn of(key: &str) -> Self {
        match key {
            "\"name\"" => Self::Name,
            "\"arguments\"" | "\"parameters\"" => Self::Arguments,
            _ => Self::Other,
        }
    }
}
