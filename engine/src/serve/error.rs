//! Why a request was not taken, and why one that was taken could not be finished.

use baton_grammar::GrammarBroken;

use super::ParameterError;

/// Whose matter a failure is, and whether to try again; one to one with `baton.v1.FailureKind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The request can never be served here.
    Invalid,
    /// No room now: later, or elsewhere.
    Overloaded,
    /// The engine is going or gone: elsewhere.
    Unavailable,
    /// The request's own deadline passed.
    Deadline,
    /// Our fault.
    Internal,
}

/// Why a request was not taken.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SubmitError {
    /// A sampling parameter is out of its range.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    /// Nothing to compute.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// The model has no such token.
    #[error("token {position} of the prompt is {id}, the vocabulary has {vocab} tokens")]
    UnknownToken {
        /// Index into the prompt.
        position: usize,
        /// What stands there.
        id: u32,
        /// Tokens of the vocabulary.
        vocab: usize,
    },
    /// Prompt and one new token are more than the model's context.
    #[error(
        "the prompt has {prompt_tokens} tokens; with one new token that is more than the context of {max_context_tokens}"
    )]
    PromptExceedsContext {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Longest sequence, prompt and output.
        max_context_tokens: usize,
    },
    /// Prompt and one new token are more than the whole KV cache holds.
    #[error(
        "the prompt has {prompt_tokens} tokens; with one new token that is more than the whole KV cache holds, {pool_tokens}"
    )]
    PromptExceedsPool {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Tokens that all blocks together hold.
        pool_tokens: usize,
    },
    /// The bound on waiting requests is reached.
    #[error("{waiting} requests wait already, which is the limit")]
    QueueFull {
        /// The bound.
        waiting: usize,
    },
    /// The deadline passed before there was room.
    #[error("the deadline passed while the request waited for KV blocks")]
    DeadlinePassed,
    /// The reservation was made for another prompt length.
    #[error("blocks were reserved for a prompt of {reserved_tokens} tokens, the prompt has {prompt_tokens}")]
    ReservationMismatch {
        /// What `reserve` was told.
        reserved_tokens: usize,
        /// What came.
        prompt_tokens: usize,
    },
    /// The reservation was made for other tokens, some of which may be in its blocks already.
    #[error("blocks were reserved for another prompt of the same length")]
    OtherPrompt,
    /// The reservation is another engine's.
    #[error("the reservation was made by another engine")]
    ForeignReservation,
    /// The engine finishes what it has and takes nothing new.
    #[error("the engine is draining")]
    Draining,
    /// The engine has ended.
    #[error("the engine has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}

/// Why a request that was taken could not be finished.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SequenceFailure {
    /// The request's own deadline.
    #[error("the deadline passed after {generated_tokens} generated tokens")]
    DeadlinePassed {
        /// Tokens that were sent before.
        generated_tokens: usize,
    },
    /// The model's output is not usable, which is a fault of the model's weights or of a kernel.
    #[error("the model gave no usable logits for token {position}: {problem}")]
    BadLogits {
        /// Position in the sequence that was to be filled.
        position: usize,
        /// What is wrong with them.
        problem: &'static str,
    },
    /// The request's grammar became too complex on the way.
    #[error(transparent)]
    Grammar(#[from] GrammarBroken),
    /// The engine ended before the sequence did.
    #[error("the engine has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}

impl SubmitError {
    /// Whose matter it is.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Parameter(_)
            | Self::EmptyPrompt
            | Self::UnknownToken { .. }
            | Self::PromptExceedsContext { .. }
            | Self::PromptExceedsPool { .. }
            | Self::ReservationMismatch { .. }
            | Self::OtherPrompt => FailureKind::Invalid,
            Self::QueueFull { .. } => FailureKind::Overloaded,
            Self::DeadlinePassed => FailureKind::Deadline,
            Self::Draining | Self::Stopped { .. } => FailureKind::Unavailable,
            Self::ForeignReservation => FailureKind::Internal,
        }
    }
}

impl SequenceFailure {
    /// Whose matter it is.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::DeadlinePassed { .. } => FailureKind::Deadline,
            Self::BadLogits { .. } => FailureKind::Internal,
            Self::Grammar(_) => FailureKind::Invalid,
            Self::Stopped { .. } => FailureKind::Unavailable,
        }
    }
}
