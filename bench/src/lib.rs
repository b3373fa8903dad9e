//! Measurements: what a part reaches, and in the same run, in turn with it, what the machine allows.
//!
//! Figures without such a limit mean little on a shared machine; the tables print both and their ratio. So far: moving KV
//! blocks between two processes ([`transfer`]).
//!
//! Deliberately absent: whole deployments under load, which benchmark harnesses for OpenAI's API measure.

pub mod transfer;
