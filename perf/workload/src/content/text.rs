//! Prompts as texts.

use baton_tokenizer::Tokenizer;

use super::{
    pattern::{Pattern, seed_of_round},
    words::Words,
};
use crate::plan::{Fill, Plan, Planned, Prompt, Role};

/// Makes prompts of words: as texts, or as the messages of a conversation.
///
/// With a tokenizer each word is one token, wherever it stands, so that lengths are exact; should the tokenizer have too few such words,
/// common English ones are used, as many as it would take on average. Without one, a word is taken for so many tokens.
/// [`check`](Self::check) counts what came of it. What a server adds (a chat template, a first token) is not counted.
#[derive(Clone, Debug)]
pub struct TextContent {
    seed: u64,
    words: Words,
    tokens_per_word: f64,
}

/// A message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said.
    pub content: String,
}

/// How long prompts came out, counted with a tokenizer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CountCheck {
    /// Prompts that were counted.
    pub prompts: u64,
    /// Tokens that they should have.
    pub planned_tokens: u64,
    /// Tokens that they have.
    pub counted_tokens: u64,
    /// The most that one prompt is off, as a share of its length.
    pub worst_error: f64,
}

impl TextContent {
    /// Words that are one token each, if there are enough; see [`is_exact`](Self::is_exact).
    pub fn with_tokenizer(tokenizer: &Tokenizer, seed: u64) -> Self {
        match Words::of_one_token(tokenizer) {
            Some(words) => Self { seed, words, tokens_per_word: 1.0 },
            None => {
                let words = Words::common();
                Self { seed, tokens_per_word: words.mean_tokens(tokenizer), words }
            }
        }
    }

    /// Common English words. Most are one token each in vocabularies of 30,000 or more; `tokens_per_word`, over 0, says how many to
    /// take a word for.
    pub fn with_common_words(tokens_per_word: f64, seed: u64) -> Self {
        Self { seed, words: Words::common(), tokens_per_word: tokens_per_word.max(0.01) }
    }

    /// The same of other words; round 0 is this one.
    #[must_use]
    pub fn in_round(&self, round: u64) -> Self {
        Self { seed: seed_of_round(self.seed, round), ..self.clone() }
    }

    /// Whether made prompts have exactly as many tokens as planned. If not, their lengths are estimates.
    pub fn is_exact(&self) -> bool {
        self.words.is_exact()
    }

    /// A prompt as one text. `answer` gives the text that came for an earlier request, by its index; `None` for one that is not known
    /// makes a text of the length that was asked for.
    pub fn text<A: AsRef<str>>(
        &self,
        plan: &Plan,
        prompt: &Prompt,
        answer: impl Fn(u32) -> Option<A>,
    ) -> String {
        let mut text = String::with_capacity(prompt.tokens() as usize * 6);
        for piece in &prompt.pieces {
            match piece.fill {
                Fill::Made => self.words(piece.id, piece.tokens, &mut text),
                Fill::Text(id) => text.push_str(&plan.text(id).text),
                Fill::Answer { index } => match answer(index) {
                    Some(answer) => text.push_str(answer.as_ref()),
                    None => self.words(piece.id, piece.tokens, &mut text),
                },
            }
        }
        text
    }

    /// A prompt as messages: made pieces are the user's, and those that follow each other one message; `answer` as for
    /// [`text`](Self::text).
    pub fn messages<A: AsRef<str>>(
        &self,
        plan: &Plan,
        prompt: &Prompt,
        answer: impl Fn(u32) -> Option<A>,
    ) -> Vec<Message> {
        let mut messages: Vec<Message> = Vec::new();
        let mut is_open = false;
        for piece in &prompt.pieces {
            match (piece.fill, messages.last_mut()) {
                (Fill::Made, Some(message)) if is_open => {
                    self.words(piece.id, piece.tokens, &mut message.content);
                }
                (fill, _) => messages.push(self.message(plan, fill, piece.id, piece.tokens, &answer)),
            }
            is_open = piece.fill == Fill::Made;
        }
        messages
    }

    fn message<A: AsRef<str>>(
        &self,
        plan: &Plan,
        fill: Fill,
        id: u64,
        tokens: u32,
        answer: impl Fn(u32) -> Option<A>,
    ) -> Message {
        let made = || {
            let mut text = String::new();
            self.words(id, tokens, &mut text);
            text
        };
        match fill {
            Fill::Made => Message { role: Role::User, content: made() },
            Fill::Text(id) => {
                let text = plan.text(id);
                Message { role: text.role, content: text.text.clone() }
            }
            Fill::Answer { index } => {
                let content = answer(index).map_or_else(made, |answer| answer.as_ref().to_owned());
                Message { role: Role::Assistant, content }
            }
        }
    }

    /// Appends a piece's words, with a space before each but a text's first.
    fn words(&self, id: u64, tokens: u32, to: &mut String) {
        let words = (f64::from(tokens) / self.tokens_per_word).round().max(1.0) as u32;
        let mut pattern = Pattern::new(self.seed, id, self.words.first().len(), self.words.rest().len());
        for place in 0..words {
            if !to.is_empty() {
                to.push(' ');
            }
            let words = if place == 0 { self.words.first() } else { self.words.rest() };
            to.push_str(&words[pattern.next()]);
        }
    }

    /// Counts the tokens of up to `most` prompts, taken evenly from the plan, with answers made up.
    pub fn check(&self, plan: &Plan, tokenizer: &Tokenizer, most: usize) -> CountCheck {
        let requests = plan.requests();
        let step = requests.len().div_ceil(most.max(1)).max(1);
        let counts = requests.iter().step_by(step).map(|Planned { prompt, .. }| {
            let text = self.text(plan, prompt, |_| None::<&str>);
            (prompt.tokens(), tokenizer.encode(&text, false).map_or(0, |ids| ids.len() as u64))
        });
        counts.fold(CountCheck::default(), |all, (planned, counted)| CountCheck {
            prompts: all.prompts + 1,
            planned_tokens: all.planned_tokens + planned,
            counted_tokens: all.counted_tokens + counted,
            worst_error: all.worst_error.max(planned.abs_diff(counted) as f64 / planned.max(1) as f64),
        })
    }
}
