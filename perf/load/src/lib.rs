//! Load on any server with OpenAI's API, and how far the figures can be trusted.
//!
//! So far: [`null`], a server whose latencies are known, which shows what a client adds to them.
#![forbid(unsafe_code)]

mod clock;
pub mod null;

pub use clock::Stamp;

/// Which of OpenAI's two APIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiShape {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Completion,
}
