//! What prompts say.

use std::{collections::HashMap, sync::Arc};

use baton_tokenizer::Tokenizer;
use baton_workload::{IdContent, Plan, Planned, Role, TextContent};
use serde::Serialize;

/// A prompt in one of the forms that servers take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// Text, for completions.
    Text(String),
    /// Token ids, for completions.
    Tokens(Vec<u32>),
    /// A conversation.
    Messages(Vec<Message>),
}

/// What somebody says in a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: &'static str,
    /// What is said.
    pub content: String,
}

/// The texts of answers, by the index of their request; only of those that a later turn says again.
pub type Answers = HashMap<u32, String>;

/// Makes prompts out of what is planned. It is asked ahead of the time at which they are sent.
pub trait Content: Send + Sync {
    /// The prompt of `request`, all answers that it contains being there.
    fn prompt(&self, plan: &Plan, request: &Planned, answers: &Answers) -> Prompt;
}

/// In which form prompts are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As messages, to `/v1/chat/completions`.
    Messages,
    /// As text, to `/v1/completions`.
    Text,
    /// As token ids, to `/v1/completions`.
    TokenIds,
}

/// Token ids are asked for, and nobody knows which there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "prompts of token ids need the model's vocabulary: give its folder with --tokenizer, or --vocab-size"
)]
pub struct NoTokenIds;

/// Prompts in that form.
///
/// # Errors
/// Token ids of an unknown vocabulary.
pub fn content(form: Form, made: &baton_workload::Content) -> Result<Arc<dyn Content>, NoTokenIds> {
    Ok(match form {
        Form::Messages => Arc::new(Conversations(made.text.clone())),
        Form::Text => Arc::new(Texts(made.text.clone())),
        Form::TokenIds => {
            Arc::new(Ids { content: made.ids.clone().ok_or(NoTokenIds)?, tokenizer: made.tokenizer.clone() })
        }
    })
}

struct Conversations(TextContent);

impl Content for Conversations {
    fn prompt(&self, plan: &Plan, request: &Planned, answers: &Answers) -> Prompt {
        let messages = self.0.messages(plan, &request.prompt, |index| answers.get(&index));
        let said = |message: baton_workload::Message| Message {
            role: match message.role {
                Role::System => "system",
                Role::User => "user",
                Role::Assistant => "assistant",
            },
            content: message.content,
        };
        Prompt::Messages(messages.into_iter().map(said).collect())
    }
}

struct Texts(TextContent);

impl Content for Texts {
    fn prompt(&self, plan: &Plan, request: &Planned, answers: &Answers) -> Prompt {
        Prompt::Text(self.0.text(plan, &request.prompt, |index| answers.get(&index)))
    }
}

struct Ids {
    content: IdContent,
    tokenizer: Option<Arc<Tokenizer>>,
}

impl Content for Ids {
    fn prompt(&self, plan: &Plan, request: &Planned, answers: &Answers) -> Prompt {
        // Without a tokenizer, tokens are made in place of the answer.
        let answer = |index| self.tokenizer.as_ref()?.encode(answers.get(&index)?, false).ok();
        // Texts out of files are refused before the run, where there is no tokenizer.
        Prompt::Tokens(self.content.prompt(plan, &request.prompt, answer).unwrap_or_default())
    }
}

/// One word a token, always the same: for servers that do not read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Words;

impl Content for Words {
    fn prompt(&self, _: &Plan, request: &Planned, _: &Answers) -> Prompt {
        let tokens = usize::try_from(request.prompt.tokens()).unwrap_or(usize::MAX);
        Prompt::Messages(vec![Message { role: "user", content: "a ".repeat(tokens).trim_end().to_owned() }])
    }
}
