//! What whoever generates is told of a request from its arrival to its end, beside what is to be generated.

use std::time::Duration;

use http::HeaderMap;

use crate::Owner;

/// A request as far as it was understood.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// Whether it could be told which model it asks for; if not, it fails.
    pub is_understood: bool,
    /// The adapter that it asks for in place of the model.
    pub adapter: Option<&'a str>,
    /// Whose it is, where tenants are known.
    pub owner: Option<&'a Owner>,
    /// The client's.
    pub headers: &'a HeaderMap,
    /// Of its body.
    pub bytes: u64,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestEnd {
    /// In which of three ways.
    pub way: EndedBy,
    /// Whether the answer was a stream.
    pub is_stream: bool,
    /// From its arrival to its first token.
    pub first_token: Option<Duration>,
    /// Of the answer's body.
    pub response_bytes: u64,
    /// Of all its prompts.
    pub prompt_tokens: u64,
    /// Of them, those that were cached.
    pub cached_tokens: u64,
    /// Of all its completions.
    pub output_tokens: u64,
}

impl RequestEnd {
    /// Of a request of which nothing was generated.
    pub(crate) fn refused(status: u16) -> Self {
        Self {
            way: EndedBy::Error(status),
            is_stream: false,
            first_token: None,
            response_bytes: 0,
            prompt_tokens: 0,
            cached_tokens: 0,
            output_tokens: 0,
        }
    }
}

/// Who ended a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    /// It was answered.
    Answer,
    /// An error with this status, which the client may have been told in a stream.
    Error(u16),
    /// The client left.
    Client,
}

/// Follows a request; dropped when it is over.
pub trait RequestWatch: Send {
    /// That was how it ended; said once.
    fn ended(self: Box<Self>, end: &RequestEnd);
}
