//! Reasoning between `<think>` and `</think>` before the answer (Qwen3, DeepSeek-R1 and models made from it).

use crate::{
    marks::{THINK_CLOSE, THINK_OPEN},
    text::{Found, Pending, Trimmed},
};

/// Where the prompt leaves the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ThinkMark {
    /// The model may begin to reason.
    #[default]
    None,
    /// The prompt's last words open reasoning: the output begins in its midst.
    Opened,
    /// The prompt's last words close it: there is none.
    Closed,
}

/// Takes reasoning off the front.
#[derive(Debug)]
pub(crate) struct Think {
    pending: Pending,
    reasoning: Trimmed,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing but white space has come.
    Start,
    Reasoning,
    /// After reasoning, before the answer's first word.
    Between,
    Answer,
}

/// A piece of the output.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Split {
    pub(crate) reasoning: String,
    pub(crate) answer: String,
}

impl ThinkMark {
    /// Of a prompt that ends so.
    pub fn at_the_end_of(prompt: &str) -> Self {
        let prompt = prompt.trim_end();
        if prompt.ends_with(THINK_OPEN) {
            Self::Opened
        } else if prompt.ends_with(THINK_CLOSE) {
            Self::Closed
        } else {
            Self::None
        }
    }
}

impl Think {
    pub(crate) fn new(mark: ThinkMark) -> Self {
        let state = match mark {
            ThinkMark::None => State::Start,
            ThinkMark::Opened => State::Reasoning,
            ThinkMark::Closed => State::Answer,
        };
        let mut reasoning = Trimmed::default();
        reasoning.skip_space();
        Self { pending: Pending::default(), reasoning, state }
    }

    pub(crate) fn push(&mut self, text: &str) -> Split {
        let mut split = Split::default();
        if self.state == State::Answer {
            split.answer.push_str(text);
            return split;
        }
        self.pending.push(text);
        while self.step(&mut split) {}
        split
    }

    /// What was held back: reasoning that was not closed is reasoning.
    pub(crate) fn finish(&mut self) -> Split {
        let rest = self.pending.take();
        match self.state {
            State::Start | State::Answer => Split { answer: rest, ..Split::default() },
            State::Reasoning => Split { reasoning: self.reasoning.push(&rest), ..Split::default() },
            State::Between => Split::default(),
        }
    }

    fn step(&mut self, split: &mut Split) -> bool {
        match self.state {
            State::Start => self.step_start(),
            State::Reasoning => match self.pending.take_until(&[THINK_CLOSE]) {
                Found::Text(text) => {
                    split.reasoning.push_str(&self.reasoning.push(&text));
                    false
                }
                Found::Mark(before, _) => {
                    split.reasoning.push_str(&self.reasoning.push(&before));
                    self.state = State::Between;
                    true
                }
            },
            State::Between => {
                self.pending.skip_space();
                let has_begun = !self.pending.is_empty();
                if has_begun {
                    self.state = State::Answer;
                }
                has_begun
            }
            State::Answer => {
                split.answer.push_str(&self.pending.take());
                false
            }
        }
    }

    /// White space before an answer without reasoning belongs to the answer, so it is kept until that is known.
    fn step_start(&mut self) -> bool {
        let begun = self.pending.as_str().trim_start();
        if begun.is_empty() || (THINK_OPEN.starts_with(begun) && begun != THINK_OPEN) {
            return false;
        }
        self.state = if begun.starts_with(THINK_OPEN) {
            self.pending.skip_space();
            self.pending.take_mark(THINK_OPEN);
            State::Reasoning
        } else {
            State::Answer
        };
        true
    }
}
