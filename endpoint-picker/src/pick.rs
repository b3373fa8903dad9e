//! What a picker is asked, and what it says.

use std::{future::Future, time::Duration};

use bytes::Bytes;

use crate::Headers;

/// A request as the gateway shows it.
#[derive(Clone, Debug, Default)]
pub struct PickRequest {
    /// With those of HTTP/2 (`:method`, `:path`, `:authority`).
    pub headers: Headers,
    /// The whole body; empty for requests without.
    pub body: Bytes,
    /// `ip:port` of those that the gateway leaves to choose from; `None`: all.
    pub subset: Option<Vec<String>>,
}

/// Where a request goes.
pub struct Pick {
    /// `ip:port`, the best first; the gateway tries the others when it fails. At least one.
    pub endpoints: Vec<String>,
    /// Set in the request beside the destination.
    pub headers: Vec<(String, String)>,
    /// In place of the request's body.
    pub body: Option<Bytes>,
    /// Is told what then happens, and dropped when the request is over.
    pub watch: Box<dyn Watch>,
}

/// The head of an endpoint's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// `ip:port` that gave it, where the gateway says so.
    pub served: Option<String>,
    /// Whether it comes in server-sent events.
    pub is_stream: bool,
}

/// What becomes of a request after it was placed. Dropped at its end; without a call of [`Self::ended`] it was broken off.
pub trait Watch: Send {
    /// The answer begins.
    fn response(&mut self, response: &Response) {
        let _ = response;
    }

    /// A part of its body.
    fn body(&mut self, chunk: &[u8]) {
        let _ = chunk;
    }

    /// It is complete.
    fn ended(&mut self) {}
}

/// Nobody watches.
impl Watch for () {}

/// Why a request goes nowhere, as the client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status: 400, 401, 403, 404, 413, 429 (there is room, but for others), 500 or 503 (there is none).
    pub status: u16,
    /// `type` of an OpenAI error.
    pub kind: &'static str,
    /// For a person.
    pub message: String,
    /// When to try again.
    pub retry_after: Option<Duration>,
}

/// Chooses endpoints.
pub trait Picker: Send + Sync + 'static {
    /// Chooses one, with those to be tried after it.
    ///
    /// # Cancel safety
    /// The future is dropped when the gateway gives up the request meanwhile.
    fn pick(&self, request: PickRequest) -> impl Future<Output = Result<Pick, Refusal>> + Send;
}
