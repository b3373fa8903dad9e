//! What can go wrong with a request, each as the fact it is. `api_error` turns them into HTTP, in one place.

use std::time::Duration;

use baton_proto::v1::{Failure, FailureKind};

/// No decode worker takes requests.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no decode worker is available{}", if *.draining > 0 { " (those that are here are draining)" } else { "" })]
pub struct NoDecodeWorker {
    /// Decode workers that are here, and take no new requests.
    pub draining: usize,
}

/// The request needs more KV cache than any decode worker has, so no wait can help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this request needs room for {needed_tokens} tokens in the KV cache ({prompt_tokens} of the prompt and {max_tokens} to \
     generate), and the largest decode worker has room for {capacity_tokens}: shorten the prompt or lower max_tokens"
)]
pub struct NeverFits {
    /// Prompt and completion together.
    pub needed_tokens: u64,
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Tokens to generate at most.
    pub max_tokens: u64,
    /// What the largest decode worker holds.
    pub capacity_tokens: u64,
}

/// The adapter was unloaded after the request was checked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("The model `{name}` does not exist here any more: no decode worker has the adapter")]
pub struct NoSuchAdapter {
    /// Its name.
    pub name: String,
}

/// The decode worker left the fleet while it served the request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("decode worker {worker} was lost while it served this request")]
pub struct WorkerLost {
    /// Its id.
    pub worker: String,
}

/// The decode worker's sidecar could not be called, or hung up before the request's end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("decode worker {worker} broke off: {reason}")]
pub struct CallBroken {
    /// Its id.
    pub worker: String,
    /// The transport's word.
    pub reason: String,
}

/// The sidecar ended the request with a failure of its own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} (decode worker {worker})")]
pub struct WorkerFailed {
    /// Its id.
    pub worker: String,
    /// Whose fault.
    pub kind: FailureKind,
    /// The worker's word.
    pub message: String,
}

impl WorkerFailed {
    /// `worker` says so.
    pub fn new(worker: &str, failure: Failure) -> Self {
        Self { worker: worker.to_owned(), kind: failure.kind(), message: failure.message }
    }
}

/// The request's own time ran out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request did not end within {} s", limit.as_secs_f64())]
pub struct DeadlinePassed {
    /// How long it had.
    pub limit: Duration,
}

/// The request was not let in: others have what it would need.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}; try again in {} s", retry_after.as_secs())]
pub struct NotNow {
    /// What stands against it.
    pub reason: String,
    /// Whether there is nobody at all, rather than nobody who is free.
    pub is_nobody: bool,
    /// When there will probably be room, in whole seconds.
    pub retry_after: Duration,
}

/// A header can't be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("header {name}: expected {expected}")]
pub struct BadHeader {
    /// Its name.
    pub name: &'static str,
    /// What it may be.
    pub expected: &'static str,
}

/// Whoever generates ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the scheduler is stopping")]
pub struct Stopping;

/// Why a generation did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant is the fact of the same name")]
pub enum GenerateError {
    #[error(transparent)]
    NoDecodeWorker(#[from] NoDecodeWorker),
    #[error(transparent)]
    NeverFits(#[from] NeverFits),
    #[error(transparent)]
    NoSuchAdapter(#[from] NoSuchAdapter),
    #[error(transparent)]
    WorkerLost(#[from] WorkerLost),
    #[error(transparent)]
    CallBroken(#[from] CallBroken),
    #[error(transparent)]
    WorkerFailed(#[from] WorkerFailed),
    #[error(transparent)]
    DeadlinePassed(#[from] DeadlinePassed),
    #[error(transparent)]
    BadHeader(#[from] BadHeader),
    #[error(transparent)]
    NotNow(#[from] NotNow),
    #[error(transparent)]
    Stopping(#[from] Stopping),
}

impl GenerateError {
    /// Whether others than those who generate here might serve it: nothing is wrong with the request itself, and there is time.
    pub(crate) fn is_servable_elsewhere(&self) -> bool {
        match self {
            Self::NoDecodeWorker(_)
            | Self::NoSuchAdapter(_)
            | Self::NotNow(_)
            | Self::WorkerLost(_)
            | Self::CallBroken(_) => true,
            Self::WorkerFailed(failed) => {
                !matches!(failed.kind, FailureKind::Invalid | FailureKind::Deadline)
            }
            Self::NeverFits(_) | Self::BadHeader(_) | Self::Stopping(_) | Self::DeadlinePassed(_) => false,
        }
    }

    /// Whether another decode worker might serve what this one did not.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::WorkerLost(_) | Self::CallBroken(_) => true,
            Self::WorkerFailed(failed) => {
                matches!(failed.kind, FailureKind::Overloaded | FailureKind::Unavailable)
            }
            Self::NoDecodeWorker(_)
            | Self::NeverFits(_)
            | Self::NoSuchAdapter(_)
            | Self::BadHeader(_)
            | Self::NotNow(_)
            | Self::Stopping(_)
            | Self::DeadlinePassed(_) => false,
        }
    }
}
