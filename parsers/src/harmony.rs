//! gpt-oss's harmony format: messages with a channel each. `analysis` is reasoning, `final` and `commentary` are content, and what is
//! addressed to `functions.NAME` is that function's arguments.
//!
//! `<|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{…}<|call|>`

use crate::{
    Delta,
    marks::{CALL, CHANNEL, END, MESSAGE, RETURN, START},
    text::{Found, Pending},
};

/// Takes messages apart.
#[derive(Debug)]
pub(crate) struct Harmony {
    pending: Pending,
    state: State,
    /// Which kinds of message there have been: two of a kind are put together with a line break between them.
    has_content: bool,
    has_reasoning: bool,
}

#[derive(Debug)]
enum State {
    /// Nothing has come: a model that does not speak harmony is content.
    First,
    Header,
    Body(Kind),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Reasoning,
    Content,
    Arguments,
}

impl Harmony {
    pub(crate) fn new() -> Self {
        Self { pending: Pending::default(), state: State::First, has_content: false, has_reasoning: false }
    }

    pub(crate) fn push(&mut self, text: &str, out: &mut Vec<Delta>) {
        self.pending.push(text);
        while self.step(out) {}
    }

    pub(crate) fn finish(&mut self, out: &mut Vec<Delta>) {
        let rest = self.pending.take();
        match self.state {
            State::First => Delta::content(&rest, out),
            State::Header => {}
            State::Body(kind) => tell(kind, &rest, out),
        }
    }

    fn step(&mut self, out: &mut Vec<Delta>) -> bool {
        match self.state {
            State::First => self.step_first(),
            State::Header => self.step_header(out),
            State::Body(kind) => match self.pending.take_until(&[END, CALL, RETURN, START]) {
                Found::Text(text) => {
                    tell(kind, &text, out);
                    false
                }
                Found::Mark(text, _) => {
                    tell(kind, &text, out);
                    self.state = State::Header;
                    true
                }
            },
        }
    }

    /// A first message begins with its channel, or with whom it is for.
    fn step_first(&mut self) -> bool {
        let begun = self.pending.as_str();
        let openings = [CHANNEL, START, MESSAGE, " to="];
        if openings.iter().any(|opening| begun.starts_with(opening)) {
            self.state = State::Header;
            return true;
        }
        if openings.iter().any(|opening| opening.starts_with(begun)) {
            return false;
        }
        self.state = State::Body(Kind::Content);
        true
    }

    fn step_header(&mut self, out: &mut Vec<Delta>) -> bool {
        let Some(at) = self.pending.as_str().find(MESSAGE) else { return false };
        let all = self.pending.take();
        let (header, body) = (&all[..at], &all[at + MESSAGE.len()..]);
        self.pending.push(body);
        let kind = self.open(header, out);
        self.state = State::Body(kind);
        true
    }

    fn open(&mut self, header: &str, out: &mut Vec<Delta>) -> Kind {
        let is_stop = |c: char| c.is_whitespace() || c == '<';
        let after = |mark: &str| {
            let (_, rest) = header.split_once(mark)?;
            rest.split(is_stop).next()
        };
        if let Some(name) = after("to=functions.").filter(|name| !name.is_empty()) {
            out.push(Delta::ToolCall { name: name.to_owned() });
            return Kind::Arguments;
        }
        let is_analysis = after(CHANNEL) == Some("analysis");
        if is_analysis {
            if std::mem::replace(&mut self.has_reasoning, true) {
                Delta::reasoning("\n", out);
            }
            return Kind::Reasoning;
        }
        if std::mem::replace(&mut self.has_content, true) {
            Delta::content("\n", out);
        }
        Kind::Content
    }
}

fn tell(kind: Kind, text: &str, out: &mut Vec<Delta>) {
    match kind {
        Kind::Reasoning => Delta::reasoning(text, out),
        Kind::Content => Delta::content(text, out),
        Kind::Arguments => Delta::arguments(text, out),
    }
}
