//! Load on any server with OpenAI's API, and how far the figures can be trusted.
//!
//! A plan (baton-workload) is sent, and a record of each request (baton-results) comes of it. Most of this crate is about what lies
//! between: that a request is sent when it should be, that what comes back is stamped when it came, and that the client says so when it
//! could not.
//!
//! ```text
//!  Workload ─► Plan ─► Schedule (pure) ─► dispatcher ─► client threads ══ HTTP/1.1, SSE ══► server
//!                                                            │ stamps after each read
//!  null server of known truth ─► Calibration ─┐              ▼
//!                                             └──────► Measured ─► Document, tables, exports
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`Bench`] | a server that was found ready, and runs against it |
//! | [`null`] | a server whose latencies are known |
//! | [`calibrate()`] | how far the client is off, here and now |
//! | [`modes`] | one run, sweeps, the search for goodput, comparisons |
//! | [`command`] | the same with options of a command line |
//!
//! Left out: what is sent and when (baton-workload), all statistics and output (baton-results), HTTP/2, and servers without OpenAI's API.
//!
//! # Invariants
//! - Latencies count from the time at which a request was to be sent, whatever kept the client from sending it.
//! - A stamp is taken after each read of a socket, before anything is parsed; nothing is between the kernel and the stamp but one task.
//! - A run is invalid, and says why, if the client was too slow, was not calibrated, held requests back, or was interrupted.
//! - Each request whose time came has exactly one record. An answer that is not whole is a failure; nothing waits without a limit.
//! - Tokens of an event are the server's count, or a tokenizer's, or a guess of one; the record says which.
#![forbid(unsafe_code)]

mod answer;
mod bench;
mod calibrate;
mod call;
mod chunk;
mod clock;
pub mod command;
mod content;
mod drive;
mod fetch;
mod http;
mod live;
mod machine;
pub mod modes;
pub mod null;
mod phases;
mod probe;
mod progress;
mod record;
mod request;
mod schedule;
mod search;
mod sse;

pub use bench::{Bench, BenchError, GetError, Setup, Title, trim};
pub use calibrate::{CalibrationError, Intensity, calibrate};
pub use clock::Stamp;
pub use content::{Answers, Content, Form, Message, NoTokenIds, Prompt, Words, content};
pub use drive::Limits;
pub use http::{BadTarget, Target, TlsSetupError};
pub use live::{Glance, Live};
pub use probe::ProbeError;
pub use progress::{Bounds, Progress};
pub use record::TokenEnds;
pub use request::{Extras, Manner};
pub use search::{Found, Search, SearchSpec, Trial};

/// Which of OpenAI's two APIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiShape {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Completion,
}
